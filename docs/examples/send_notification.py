"""Answer at once, write the log afterwards.

    $ curl -X POST http://127.0.0.1:8000/send-notification/ada@example.org
    {"message":"Notification sent successfully!"}

The terminal of the server then shows:

    Log written: Notification sent to: ada@example.org
"""

from trioweb import App, BackgroundTasks

app = App()


def write_log(message: str) -> None:
    with open("log.txt", mode="a") as log_file:
        log_file.write(message + "\n")
    print(f"Log written: {message}")


@app.post("/send-notification/{email}")
async def send_notification(email: str, background_tasks: BackgroundTasks):
    background_tasks.add_task(write_log, f"Notification sent to: {email}")
    return {"message": "Notification sent successfully!"}
