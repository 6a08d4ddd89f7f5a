from django.http import HttpResponse
from django.urls import path
from seed_views import broadcast, echo, myendpoint

urlpatterns = [
    path("", lambda request: HttpResponse("up")),
    path("stream/", myendpoint),
    path("echo/", echo),
    path("broadcast/", broadcast),
]
