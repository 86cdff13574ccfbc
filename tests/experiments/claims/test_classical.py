"""Tests of the claims on the classical sets."""


def test_every_claim_has_its_trainings_and_whole_sets_count(tmp_path):
    from experiments.claims import classical
    from experiments.claims.settings import read_settings

    runs = list(classical.runs())
    assert len({run.name for _, _, run in runs}) == len(runs) == 4 * 10 * 25
    known = {variant for _, variant, _ in runs}
    assert all({*s.plus, *s.minus} <= known for s in classical.statements())
    (config,) = next(run for _, v, run in runs if v == "ASMIL with anchor").settings["candidates"]
    assert config["train#named_handlers#anchor#loss"]["_target_"].endswith("SoftmaxKLLoss")
    runner = classical._runner(tmp_path, tmp_path)
    runner.work = lambda run, folder: {"labels": [0, 1], "probabilities": [0.2, 0.9]}
    first = [run for name, v, run in runs if v == "ASMIL with anchor" and name in ("musk1", "ucsb")]
    runner.run_all(first[:-1], report=None)  # one fold of the second set is missing
    answers = classical.read_answers(tmp_path, tmp_path)
    assert list(answers["ASMIL with anchor"]) == [read_settings()["classical"]["sets"].index("musk1")]
    assert len(answers["ASMIL with anchor"][0]) == 20
