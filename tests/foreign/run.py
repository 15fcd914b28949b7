"""Runs the suites of others against Apache Kafka and Thalweg, and compares: tests/suites --against both. See docs/testing.md."""

import argparse
import concurrent.futures
import dataclasses
import json
import pathlib
import shutil
import signal
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

import brokers  # noqa: E402
from kafka_python import KafkaPython  # noqa: E402
from librdkafka import Librdkafka  # noqa: E402
from suite import FAILED, PASSED, SKIPPED, Result, kafka_home, kill_running  # noqa: E402

SUITES = {suite.name: suite for suite in (Librdkafka, KafkaPython)}
BROKERS = {"kafka": (brokers.Kafka, "Apache Kafka 4.3.1"), "thalweg": (brokers.Thalweg, "Thalweg")}
# `open` is none: the run fails, but says what is missing.
KINDS = {"open", "transactions", "kip-848", "several-brokers", "kafka-files", "never"}


class Reasons:
    """reasons.toml: why a test may fail on Thalweg, and which fail on Kafka itself."""

    def __init__(self, suite):
        table = tomllib.loads((HERE / "reasons.toml").read_text())
        self.known = table.get(suite, {})
        for test, reason in self.known.items():
            if set(reason) != {"kind", "why"} or reason["kind"] not in KINDS:
                sys.exit(f"reasons.toml: {suite}, {test}: wants a kind ({', '.join(sorted(KINDS))}) and a why")
        self.fails_on_kafka = table.get("fails-on-kafka", {}).get(suite, {})


def run_suite(suite, broker_name, options, output):
    """Runs the chosen groups of a suite against one broker, fresh for each scenario: {test: Result}."""
    results = {}
    for scenario, settings in suite.scenarios.items():
        groups = [g for g in suite.groups if g.scenario == scenario and chosen(g, options.tests)]
        if not groups:
            continue
        with BROKERS[broker_name][0](settings) as broker:
            results.update(run_groups(suite, groups, broker, options, output))
            broker.stop()
    return dict(sorted(results.items()))


def chosen(group, words):
    return not words or any(word in name for word in words for name in (group.name, *group.tests))


def run_groups(suite, groups, broker, options, output):
    """All groups, a few at once; then those that failed once more, each alone, for a machine under load makes timeouts."""
    results = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        try:
            for group_results in pool.map(lambda g: run_group(suite, g, broker, options, output, 1), groups):
                results.update(group_results)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kill_running()
            raise
    for group in groups:
        if options.again and any(results[test].state == FAILED for test in group.tests):
            results.update(run_group(suite, group, broker, options, output, 2))
    return results


def run_group(suite, group, broker, options, output, attempt):
    directory = output / "logs" / broker.name / suite.name / f"{group.name.replace('/', '.')}-{group.scenario}-{attempt}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if not broker.alive():
        return {test: Result(FAILED, 0, "the broker is gone", attempt) for test in group.tests}
    results = suite.run(group, broker.bootstrap, directory, attempt, options.timeout)
    for test, result in results.items():
        result.attempts = attempt
        print(f"  {broker.name:8} {result.state:8} {result.seconds:6.1f} s  {test}{'  ' + result.why[:150] if result.why else ''}", flush=True)
    return results


def pass_list(suite, broker_name, results, seconds):
    """The pass list of one broker as text."""
    counts = ", ".join(f"{sum(r.state == state for r in results.values())} {state}" for state in (PASSED, FAILED, SKIPPED))
    lines = [f"{suite.name} {suite.version} against {BROKERS[broker_name][1]}: {counts}, {seconds:.0f} s"]
    for test, result in results.items():
        again = ", at the second attempt" if result.attempts > 1 else ""
        lines.append(f"  {result.state:8} {test}{again}{': ' + result.why if result.why else ''}")
    return "\n".join(lines)


def compare(suite, reasons, kafka, thalweg):
    """What is to be said about the two pass lists, as lines, and the number of differences without a reason."""
    lines, bad = [], 0
    for test, result in thalweg.items():
        # Alone, what skips itself is not judged: only beside Kafka is it seen whether it does so there too.
        alone = FAILED if test in reasons.fails_on_kafka else SKIPPED if result.state == SKIPPED else PASSED
        on_kafka = kafka[test].state if kafka else alone
        reason = reasons.known.get(test)
        if kafka and (on_kafka == FAILED) != (test in reasons.fails_on_kafka):
            word = "fails on Kafka and is not in" if on_kafka == FAILED else "does not fail on Kafka but is in"
            lines.append(f"  {'NOTE':16} {test}: {word} [fails-on-kafka]")
        if on_kafka == PASSED and result.state != PASSED:
            allowed = reason is not None and reason["kind"] != "open"
            bad += not allowed
            kind = "NO REASON" if reason is None else reason["kind"].upper() if not allowed else reason["kind"]
            lines.append(f"  {kind:16} {test}: {reason['why'] + ': ' if reason else ''}{result.why}")
        elif reason and result.state == PASSED:
            bad += 1
            lines.append(f"  {'STALE REASON':16} {test} passes; take it out of reasons.toml")
        elif kafka and on_kafka != PASSED and result.state == PASSED:
            lines.append(f"  {'only Thalweg':16} {test}: on Kafka {on_kafka}: {kafka[test].why}")
    lines.insert(0, f"{suite.name}: differences, {bad} of them not allowed" if lines else f"{suite.name}: no difference")
    return lines, bad


def arguments():
    parser = argparse.ArgumentParser(prog="tests/suites", description=__doc__)
    parser.add_argument("--against", choices=["both", "kafka", "thalweg"], required=True)
    parser.add_argument("--jobs", type=int, default=3, help="tests at once (3); they wait more than they compute")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds that one process may take (1200)")
    parser.add_argument("--once", dest="again", action="store_false", help="do not run failed tests a second time")
    parser.add_argument("--output", type=pathlib.Path, default=brokers.REPOSITORY / "target" / "suites", help="where lists and logs go")
    parser.add_argument("words", nargs="*", help=f"a suite ({', '.join(SUITES)}), or parts of tests' names; nothing: all")
    options = parser.parse_args()
    options.suites = [name for name in SUITES if name in options.words] or list(SUITES)
    options.tests = [word for word in options.words if word not in SUITES]
    return options


def main():
    options = arguments()
    # Whoever stops the runner stops its brokers and tests too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.output.mkdir(parents=True, exist_ok=True)
    home = brokers.work_directory("kafka-home")
    report, bad = [], 0
    for name in options.suites:
        suite = SUITES[name](kafka_home(home / name))
        if not options.tests:
            why = {}
            for test, reason in suite.left_out.items():
                why.setdefault(reason, []).append(test)
            for reason, tests in why.items():
                report.append(f"{name}: left out, {reason}: {', '.join(tests)}")
                print(report[-1])
        results = {}
        for broker_name in ("kafka", "thalweg") if options.against == "both" else (options.against,):
            print(f"=== {name} {suite.version} against {BROKERS[broker_name][1]} ===", flush=True)
            began = time.monotonic()
            results[broker_name] = run_suite(suite, broker_name, options, options.output)
            seconds = time.monotonic() - began
            report.append(pass_list(suite, broker_name, results[broker_name], seconds))
            written = {
                "suite": name,
                "version": suite.version,
                "broker": BROKERS[broker_name][1],
                "seconds": round(seconds),
                "tests": {test: dataclasses.asdict(r) for test, r in results[broker_name].items()},
            }
            (options.output / f"{name}-{broker_name}.json").write_text(json.dumps(written, indent=1) + "\n")
        if "thalweg" in results:
            lines, unexplained = compare(suite, Reasons(name), results.get("kafka"), results["thalweg"])
            report.append("\n".join(lines))
            bad += unexplained
    shutil.rmtree(home, ignore_errors=True)
    text = "\n\n".join(report)
    (options.output / "report.txt").write_text(text + "\n")
    print(f"\n{text}\n\nwritten: {options.output}/report.txt and *.json; the output of each test: {options.output}/logs")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
