from rest_framework import serializers

from tests.shop.models import Item, Line, Order, Parcel, Project, Tag


class OrderSerializer(serializers.ModelSerializer):
    customer_name = serializers.CharField(source="customer.name", default=None)

    class Meta:
        model = Order
        fields = ("id", "status", "total", "placed_at", "customer_name")


class OrderAdminSerializer(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = "__all__"


class LineSerializer(serializers.ModelSerializer):
    class Meta:
        model = Line
        fields = ("id", "order", "sku", "weight")


class NarrowLineSerializer(serializers.ModelSerializer):
    class Meta:
        model = Line
        fields = ("id", "sku")


class ParcelSerializer(serializers.ModelSerializer):
    class Meta:
        model = Parcel
        fields = ("id", "code")


class TagSerializer(serializers.ModelSerializer):
    class Meta:
        model = Tag
        fields = ("id", "name")


class ProjectSerializer(serializers.ModelSerializer):
    class Meta:
        model = Project
        fields = ("id", "tenant", "name")


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ("id", "name")


class StaffItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = Item
        fields = ("id", "name", "reserve")
