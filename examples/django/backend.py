import sys
import threading
import time

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from runcast import Client

settings.configure(
    DEBUG=True, SECRET_KEY="for this page only", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]
)

runcast = Client()
user = "user:42"  # whoever request.user is


@require_POST
def start(request):
    run = runcast.tasks.trigger("story", {"prompt": "Tell me a story."}, tags=user)
    threading.Thread(target=tell, args=[run.id]).start()
    return JsonResponse({"run": run.id})


def token(request):
    return HttpResponse(
        runcast.create_public_token([f"read:tags:{user}"], expires="15m"),
        content_type="text/plain",
    )


def tell(run_id):  # a worker in another process would do the same
    with runcast.runs.take(run_id) as run:
        run.pipe("llm", model(run.payload["prompt"]))


def model(prompt):  # stands for the stream of your model
    for word in "Once upon a time a run told a story, word by word, to whoever listened.".split():
        time.sleep(0.1)
        yield word + " "


urlpatterns = [path("api/stories", start), path("api/token", token)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
