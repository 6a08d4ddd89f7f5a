from django.urls import include, path
from rest_framework.routers import DefaultRouter

from auction.views import lot_page
from tests.shop import views

router = DefaultRouter()
router.register("orders", views.OrderViewSet, basename="order")
router.register("guarded", views.GuardedOrderViewSet, basename="guarded")
router.register("open", views.OpenOrderViewSet, basename="open")
router.register("lines", views.LineViewSet)
router.register("tags", views.TagViewSet)
router.register("items", views.ItemViewSet, basename="item")
router.register("staff-items", views.StaffItemViewSet, basename="staff-item")

urlpatterns = [
    path("", include(router.urls)),
    path("hold/", views.hold),
    path("ahold/", views.ahold),
    path("plain/", views.plain),
    path("large/", views.large),
    path("lots/<int:pk>/", lot_page, name="lot"),
]
