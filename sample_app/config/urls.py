"""The pages, the API with its streams, and the admin."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from auction import views

router = DefaultRouter()
router.register("lots", views.LotViewSet)
router.register(
    r"categories/(?P<category>[^/]+)/lots",
    views.CategoryLotViewSet,
    basename="category-lot",
)
router.register("bids", views.OwnBidViewSet, basename="own-bid")

urlpatterns = [
    path("", views.lot_list, name="lots"),
    path("lots/<int:pk>/", views.lot_page, name="lot"),
    path("bids/", views.own_bids, name="own-bids"),
    path("login/", LoginView.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("api/", include(router.urls)),
    path("admin/", admin.site.urls),
    # runserver serves static files by itself; gunicorn in front of a demo does not.
    *staticfiles_urlpatterns(),
]
