"""Fill the auction with six lots, and give it an administrator and a bidder."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.utils import timezone

from auction.models import Lot

LOTS = [
    {
        "title": "Brass sextant in its case",
        "category": "Instruments",
        "description": "Silvered arc, three shades, two telescopes and a fitted "
        "mahogany case. About 1860.",
        "starting_price": Decimal("240.00"),
        "reserve_price": Decimal("400.00"),
    },
    {
        "title": "Marine chronometer",
        "category": "Instruments",
        "description": "Two days' movement, hung in gimbals in a three-tier box. "
        "Gains a second a day.",
        "starting_price": Decimal("1450.00"),
        "reserve_price": Decimal("2200.00"),
    },
    {
        "title": "Walnut writing desk",
        "category": "Furniture",
        "description": "Seven dovetailed drawers, a lid lined with green leather, "
        "and one secret drawer.",
        "starting_price": Decimal("380.00"),
        "reserve_price": Decimal("600.00"),
    },
    {
        "title": "Bentwood rocking chair",
        "category": "Furniture",
        "description": "Steamed beech with a hand-woven cane seat and back. "
        "Rocks without a sound.",
        "starting_price": Decimal("95.00"),
        "reserve_price": Decimal("140.00"),
    },
    {
        "title": "Celestial atlas, 29 plates",
        "category": "Books and maps",
        "description": "The northern and southern skies on double pages, coloured "
        "by hand.",
        "starting_price": Decimal("620.00"),
        "reserve_price": Decimal("900.00"),
    },
    {
        "title": "Harbour chart of Lisbon",
        "category": "Books and maps",
        "description": "Soundings in fathoms, two compass roses and one small "
        "whale. Laid paper.",
        "starting_price": Decimal("160.00"),
        "reserve_price": Decimal("250.00"),
    },
]


class Command(BaseCommand):
    help = (
        "Add the six lots of the demo, reopen those whose time is over, and add the "
        "superuser admin with the password admin and the user bidder with the password "
        "bidder. Changes nothing on a second run. For a demo only."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        for number, fields in enumerate(LOTS, start=1):
            # Never all at once, and never on the hour: a countdown should look alive.
            closes_at = timezone.now() + timedelta(days=1 + number, minutes=7 * number)
            lot, created = Lot.objects.get_or_create(
                title=fields["title"], defaults=fields | {"closes_at": closes_at}
            )
            if not created and not lot.is_open:
                lot.closes_at = closes_at
                lot.status = Lot.Status.OPEN
                lot.save(update_fields=["closes_at", "status"])
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", "admin@example.com", "admin")
        if not users.filter(username="bidder").exists():
            users.create_user("bidder", password="bidder")
        if options["verbosity"]:
            self.stdout.write(
                f"{Lot.objects.count()} lots; log in as admin/admin or bidder/bidder."
            )
