"""The shortest one."""

from trioweb import App
from trioweb.testing import client

app = App()


@app.get("/search")
async def search(q: str):
    return {"q": q}


async def test_search():
    async with client(app) as c:  # the lifespan starts
        response = await c.get("/search", params={"q": "trio"})
        assert response.status_code == 200
        assert response.json() == {"q": "trio"}
    # drained, and the lifespan closed
