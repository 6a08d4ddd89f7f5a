from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """The project that the chaos runner kills."""

    name = "tests.chaos"
    label = "chaos"
