"""``wattledger compare``: architectures across accelerator types."""

from __future__ import annotations

from orchestrator.cli import options
from orchestrator.cli.report import load_accounts
from orchestrator.cli.results import print_comparison, ranges_of
from orchestrator.compare.table import as_dict


def compare(
    run: options.RunArgument = None,
    as_json: options.JsonOption = False,
    prometheus: options.PrometheusOption = None,
    prometheus_config: options.PrometheusConfigOption = None,
    home: options.HomeOption = None,
) -> None:
    """Compare architecture x accelerator: energy, joules per sample, score, gain and CEGI, mean and spread."""
    loaded = load_accounts(options.home_of(home), run, prometheus, prometheus_config)
    run_id, accounts = loaded.title, loaded.accounts
    if as_json:
        options.print_json(as_dict([account.row for account in accounts], ranges_of(accounts)))
    else:
        print_comparison(f"Comparison of {run_id}", accounts)
