"""``wattledger submit``: put manifests into the queue, and leave."""

from __future__ import annotations

from dataclasses import asdict

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import print_text


def submit(
    manifests: options.ManifestsArgument,
    profile: options.ProfileOption = None,
    submission_id: options.SubmissionOption = None,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Put manifests' jobs into the queue and return at once; the ledger's controller runs them.

    Prints each run's id and its jobs'. Exit codes: 0 submitted, 2 bad input, 3 no controller.
    """
    submitted = client.submit(manifests, profile=profile, home=options.home_of(home), submission_id=submission_id)
    if as_json:
        options.print_json([asdict(each) for each in submitted])
        return
    for each in submitted:
        known = len(each.job_ids) - each.new
        before = f", {known} of them submitted before" if known else ""
        print_text(f"{each.run_id}: {len(each.job_ids)} job{'' if len(each.job_ids) == 1 else 's'}{before}")
        print_text("\n".join(f"  {job_id}" for job_id in each.job_ids))
    print_text(f"follow: wattledger status {submitted[-1].run_id} --watch")
