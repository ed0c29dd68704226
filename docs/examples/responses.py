"""Answers that say more than their content: status, headers, cookies, another place.

    $ curl -i -X POST http://127.0.0.1:8000/login
    HTTP/1.1 200
    content-type: application/json
    set-cookie: session=a1b2; Max-Age=3600; Path=/; SameSite=lax; Secure; HttpOnly

    {"status":"welcome"}

Leaving forgets the cookie, and shows another page:

    $ curl -i -X POST http://127.0.0.1:8000/logout
    HTTP/1.1 303
    location: /hello
    set-cookie: session=""; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; SameSite=lax

    $ curl http://127.0.0.1:8000/hello
    <h1>Hello</h1>

    $ curl -i -X DELETE http://127.0.0.1:8000/notes/7
    HTTP/1.1 204
"""

from trioweb import App, HTMLResponse, JSONResponse, RedirectResponse

app = App()


@app.post("/login")
async def login():
    response = JSONResponse({"status": "welcome"})
    response.set_cookie("session", "a1b2", max_age=3600, secure=True, httponly=True)
    return response


@app.post("/logout")
async def logout():
    response = RedirectResponse(app.url_for("hello"), status_code=303)
    response.delete_cookie("session")
    return response


@app.get("/hello")
async def hello():
    return HTMLResponse("<h1>Hello</h1>")


@app.delete("/notes/{note_id}", status_code=204)
async def delete_note(note_id: int):
    return None
