from django_grip.contrib.realtime import ModelStream, register
from tests.shop.models import Item


@register(Item)
class ItemStream(ModelStream):
    audiences = {
        "public": "tests.shop.serializers.ItemSerializer",
        "staff": "tests.shop.serializers.StaffItemSerializer",
    }
