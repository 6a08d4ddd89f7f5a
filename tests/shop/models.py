import uuid

from django.db import models

from django_grip.contrib.realtime import RealtimeModel, realtime


class Customer(models.Model):
    """Registered nowhere."""

    name = models.CharField(max_length=50)


@realtime
class Tag(models.Model):
    name = models.CharField(max_length=50)


@realtime(serializer_class="tests.shop.serializers.OrderSerializer")
class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, null=True)
    status = models.CharField(max_length=20, default="new")
    total = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    placed_at = models.DateTimeField(auto_now_add=True)
    secret = models.CharField(max_length=20, default="hidden")


class UrgentOrder(Order):
    """A child under multi-table inheritance, not registered itself."""

    deadline = models.DateField(null=True)


class OrderView(Order):
    """A proxy model."""

    class Meta:
        proxy = True


@realtime(fields=["id", "order", "sku", "weight"])
class Line(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    sku = models.CharField(max_length=20)
    weight = models.DecimalField(max_digits=6, decimal_places=3, default=0)


class Parcel(RealtimeModel):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    code = models.CharField(max_length=20)

    class Realtime:
        fields = ("id", "code")


class Item(models.Model):
    """Registered by tests.shop.streams with two audiences."""

    name = models.CharField(max_length=50)
    reserve = models.IntegerField(default=0)
