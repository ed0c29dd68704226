"""Routes and their answers.

    $ curl http://127.0.0.1:8000/
    {"message":"Hello, world"}

    $ curl 'http://127.0.0.1:8000/greet/ada?greeting=Hi'
    {"message":"Hi, ada"}

A path that no route fits:

    $ curl -i http://127.0.0.1:8000/greet
    HTTP/1.1 404
    content-type: application/json

    {"detail":"Not Found"}
"""

import trio

from trioweb import App

app = App()


@app.get("/")
async def index():
    return {"message": "Hello, world"}


@app.get("/greet/{name}")
async def greet(name: str, greeting: str = "Hello"):
    return {"message": f"{greeting}, {name}"}


@app.get("/patience")
async def patience():
    await trio.sleep(0.1)
    return {"message": "Thank you for waiting"}
