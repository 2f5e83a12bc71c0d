import threading
import time

from flask import Flask

from runcast import Client

app = Flask(__name__)
runcast = Client()
user = "user:42"  # whoever your sessions say it is


@app.post("/api/stories")
def start():
    run = runcast.tasks.trigger("story", {"prompt": "Tell me a story."}, tags=user)
    threading.Thread(target=tell, args=[run.id]).start()
    return {"run": run.id}


@app.get("/api/token")
def token():
    text = runcast.create_public_token([f"read:tags:{user}"], expires="15m")
    return text, {"Content-Type": "text/plain"}


def tell(run_id):  # a worker in another process would do the same
    with runcast.runs.take(run_id) as run:
        run.pipe("llm", model(run.payload["prompt"]))


def model(prompt):  # stands for the stream of your model
    for word in "Once upon a time a run told a story, word by word, to whoever listened.".split():
        time.sleep(0.1)
        yield word + " "
