import uuid

from django.conf import settings
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver

from django_grip.contrib.realtime import RealtimeManager, RealtimeModel, realtime


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


class Tenant(models.Model):
    """Registered nowhere."""

    name = models.CharField(max_length=50)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="tenants")


@realtime(
    serializer_class="tests.shop.serializers.ProjectSerializer",
    scopes={
        "tenant": "tenant_id",
        "region": "region",
        "public": lambda project: project.is_public,
    },
    refresh=True,
)
class Project(models.Model):
    """A tenant's."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True)
    name = models.CharField(max_length=50)
    region = models.CharField(max_length=20, default="north")
    is_public = models.BooleanField(default=False)

    objects = RealtimeManager()


@realtime
class Depot(models.Model):
    region = models.CharField(max_length=20, default="north")


@realtime
class Label(models.Model):
    word = models.CharField(max_length=20)


@realtime(fields=["id", "tenant", "status", "note"])
class Shipment(models.Model):
    """The tests of scopes, membership and bulk writes give it their own options."""

    tenant = models.IntegerField(null=True)
    depot = models.ForeignKey(Depot, models.CASCADE, null=True)
    status = models.CharField(max_length=300, default="open")
    note = models.TextField(default="")
    weight = models.IntegerField(default=0)
    double = models.GeneratedField(
        expression=models.F("weight") * 2,
        output_field=models.IntegerField(),
        db_persist=True,
    )
    priority = models.IntegerField(db_default=5)
    saved_at = models.DateTimeField(auto_now=True)
    labels = models.ManyToManyField(Label, related_name="shipments")

    objects = RealtimeManager()


class OpenShipment(Shipment):
    """A proxy model; it inherits the manager."""

    class Meta:
        proxy = True


@realtime(fields=["id", "owner"])
class Vehicle(models.Model):
    owner = models.IntegerField(default=0)

    objects = RealtimeManager()


@realtime(fields=["id", "owner", "load"])
class Truck(Vehicle):
    """A child under multi-table inheritance, registered like its parent."""

    load = models.IntegerField(default=0)


@realtime
class Category(models.Model):
    """A tree: deleting a row deletes others of the same model."""

    parent = models.ForeignKey("self", models.CASCADE, null=True)
    tenant = models.IntegerField(default=7)

    objects = RealtimeManager()


@realtime(fields=["hall", "number", "status"])
class Seat(models.Model):
    pk = models.CompositePrimaryKey("hall", "number")
    hall = models.IntegerField()
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=20, default="free")

    objects = RealtimeManager()


@realtime
class Price(models.Model):
    amount = models.DecimalField(primary_key=True, max_digits=8, decimal_places=2)


@realtime
class Day(models.Model):
    date = models.DateField(primary_key=True)


@realtime
class Word(models.Model):
    text = models.CharField(primary_key=True, max_length=300)


class Member(models.Model):
    code = models.CharField(max_length=20, unique=True)


@realtime
class Club(models.Model):
    """Its members are joined by codes, not by pks."""

    code = models.CharField(max_length=20, unique=True)
    members = models.ManyToManyField(Member, through="Membership", related_name="clubs")


@realtime(touch=["club"])
class Membership(models.Model):
    club = models.ForeignKey(Club, models.CASCADE, to_field="code")
    member = models.ForeignKey(Member, models.CASCADE, to_field="code")


@realtime(fields=["id", "tenant", "number"])
class Invoice(models.Model):
    """Saves itself once more when it was saved, as projects do to number rows."""

    tenant = models.IntegerField()
    number = models.CharField(max_length=20, default="")


# Connected before realtime's own receivers, as a project's are.
@receiver(post_save, sender=Invoice)
def number_invoice(instance, **kwargs):
    number = f"{instance.tenant}-{instance.pk}"
    if instance.number != number:
        instance.number = number
        instance.save()
