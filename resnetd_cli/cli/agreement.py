"""What a comparison found, in words."""

from __future__ import annotations

from resnetd_cli.about import Facts, figures
from resnetd_cli.cli.outputs import TextOutput
from resnetd_cli.results import Agreement
from resnetd_cli.system.wording import counted
from resnetd_cli.views.listing import write_facts


def write(agreement: Agreement, format_name: str) -> None:
    """Print what a comparison found."""
    facts = figures(agreement)
    target = TextOutput.choose(format_name, None, overwrite=False, elsewhere="pairs")
    with target.open() as stream:
        write_facts(facts, stream, target.format, shown=in_words(facts))


def in_words(facts: Facts) -> dict[str, str]:
    """Return a comparison's figures as people read them."""
    mean, largest = facts["mean_difference"], facts["largest_difference"]
    return {
        "compared on": counted(facts["images"], "image", ","),
        "same top-1": f"{facts['top1_agreement']:.1%}",
        "probabilities": f"the largest difference in an image is {mean:.2g} on average, {largest:.2g} at most",
        "speed": f"{facts['speed_up']:.2f} times as many images a second",
    }
