from django.urls import path

from django_grip import websocket_only


@websocket_only
def echo(request):
    ws = request.wscontext
    if ws.is_opening():
        ws.accept()
    while ws.can_recv():
        ws.send(ws.recv())


@websocket_only
async def aecho(request):
    echo.__wrapped__(request)


@websocket_only
def fails(request):
    raise RuntimeError


urlpatterns = [path("echo/", echo), path("aecho/", aecho), path("fails/", fails)]
