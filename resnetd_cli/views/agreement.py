"""How far two forms of a model agree, as `pull --verify` and `export --verify` show it."""

from __future__ import annotations

from typing import IO

from resnetd_cli.about import Facts, agreement_facts
from resnetd_cli.results import Agreement
from resnetd_cli.system.wording import counted
from resnetd_cli.views.listing import write_facts


def write_agreement(agreement: Agreement, stream: IO[str], format_name: str) -> None:
    """Write the figures of an agreement; the formats are those of `write_facts`."""
    facts = agreement_facts(agreement)
    write_facts(facts, stream, format_name, shown=in_words(facts))


def in_words(facts: Facts) -> dict[str, str]:
    """Return the figures of an agreement as people read them."""
    mean, largest = facts["mean_difference"], facts["largest_difference"]
    return {
        "compared on": counted(facts["images"], "image", ","),
        "same top-1": f"{facts['top1_agreement']:.1%}",
        "probabilities": f"the largest difference in an image is {mean:.2g} on average, {largest:.2g} at most",
        "speed": f"{facts['speed_up']:.2f} times as many images per second",
    }
