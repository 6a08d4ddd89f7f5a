"""Close lots: a cron job of an auction, and a publisher that ends at once."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from auction.models import Lot


class Command(BaseCommand):
    help = "Close the lots whose time is over, or those named by their ids."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("ids", nargs="*", type=int, metavar="ID")

    def handle(self, *args: Any, ids: list[int], **options: Any) -> None:
        lots = Lot.objects.filter(status=Lot.Status.OPEN)
        lots = (
            lots.filter(pk__in=ids)
            if ids
            else lots.filter(closes_at__lte=timezone.now())
        )
        for lot in lots:
            lot.status = Lot.Status.CLOSED
            # One by one: QuerySet.update() sends no signal, so nobody would see it.
            lot.save(update_fields=["status"])
            self.stdout.write(f"Closed {lot}.")
