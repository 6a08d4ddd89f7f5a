from django.contrib.auth.models import Group

from django_grip.contrib.realtime import ModelStream, register
from tests.shop.models import Item


@register(Item)
class ItemStream(ModelStream):
    audiences = {
        "public": "tests.shop.serializers.ItemSerializer",
        "staff": "tests.shop.serializers.StaffItemSerializer",
    }


@register(Group)
class GroupStream(ModelStream):
    """A model of somebody else's."""

    fields = ("id", "name")
