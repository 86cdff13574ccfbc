"""Tests of the claims on the classical sets."""

from itertools import product


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
    number = read_settings()["classical"]["sets"].index("ucsb")
    asmil = classical.turns()[1]
    for fold, variant in product(range(6), asmil):
        runner.run_all([run for _, v, run in runs if _is(run, "ucsb", fold) and v == variant], report=None)
    runner.run_all([run for _, v, run in runs if _is(run, "musk1", 0) and v in asmil], report=None)
    last = next(run for _, v, run in runs if _is(run, "ucsb", 5) and v == asmil[-1])
    assert len(classical.read_answers(tmp_path, tmp_path)[asmil[0]][number]) == 12
    (runner.run_folder(last) / "run.json").unlink()  # the sixth fold is not whole
    answers = classical.read_answers(tmp_path, tmp_path)
    assert set(answers) == set(asmil)
    assert list(answers[asmil[0]]) == [number]  # of the other set, one fold is too few
    assert {len(of[number]) for of in answers.values()} == {10}


def _is(run, name, fold):
    return (run.settings["set"], run.settings["fold"]) == (name, fold)


def test_a_stopped_experiment_has_whole_sets_of_small_bags_first():
    from experiments.claims import classical

    order = list(dict.fromkeys((name, variant) for name, variant, _ in classical.runs()))
    sets = list(dict.fromkeys(name for name, _ in order))
    assert sets == ["musk1", "elephant", "ucsb", "musk2"]
    assert order.index(("ucsb", "DTFDMIL")) < order.index(("musk1", "ASMIL with no part"))
    assert order[-1] == ("musk2", "TransMIL")


def test_every_term_of_a_method_has_its_handler():
    from experiments.claims.configs import term_handlers

    from monai_mil_ext.apps.study import parse_methods

    names = {"CLAM": "instance_loss", "DSMIL": "branch_loss", "ABMIL+MHIM": "mining", "ABMIL+AEM": "attention_entropy"}
    for name, key in names.items():
        (config,) = term_handlers(name, "net.").values()
        assert list(term_handlers(name)) == [f"train#named_handlers#{key}"]
        (weight,) = (value for value in parse_methods(name)[0].weights.values() if value)
        assert config["weight"] == weight
    assert term_handlers("DSMIL", "net.")["train#named_handlers#branch_loss"]["layer"] == "net.branch_tap"
