"""The command `reid eval`."""

from __future__ import annotations

import argparse


def _eval(options: argparse.Namespace) -> int:
    from reidcore.runfolder.opening import load_model, read_plan
    from reidcore.support.files import check_output, write_json
    from reidcore.support.progress import Silent, reporter

    check_output(options.output)
    plan = read_plan(
        options.folder, "eval", evaluation=options.file, sets=options.sets, make_data=True
    )
    from reidcore.distributed.processes import together
    from reidcore.evaluation.evaluate import evaluate
    from reidcore.evaluation.job import evaluation_job
    from reidcore.evaluation.labelled_set import require_scorable
    from reidcore.evaluation.score_table import score_table
    from reidcore.model.building import make_loader
    from reidcore.ranking.scorer import make_scorer

    require_scorable(plan)

    with together() as processes:
        shown = reporter() if processes.first else Silent()
        try:
            model = load_model(options.folder, plan, plan.runfile.train.device)
            scorer = make_scorer(model, make_loader(plan, model.device), processes)
            kept = scorer.kept_blocks(options.folder, shown)
            scores = evaluate(evaluation_job(plan), scorer, kept, shown)
        finally:
            shown.close()
        if not processes.first:
            return 0
    print(score_table(scores))
    if options.output is not None:
        write_json(options.output, scores)
    return 0
