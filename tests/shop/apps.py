from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Models and views of the tests."""

    name = "tests.shop"
    label = "shop"
