"""`boxmatch check-assigner`: try the properties that hold for every assigner on anybody's."""

from collections.abc import Sequence

from boxmatch.commands.errors import EXIT_FAULT, UsageError

HELP = """\
usage: boxmatch check-assigner PACKAGE.MODULE:CLASS [--args.OPTION VALUE ...] [--args JSON]

Tries what must hold for every assigner, whatever its rule: the order of boxes and pictures does not matter,
a batch is its pictures one by one, odd boxes and empty pictures break nothing, and so on. One line for each
property: pass, FAIL with what was expected and how to repair it, or not applicable with the reason.

  PACKAGE.MODULE:CLASS   a class, a function that makes an assigner, or a boxmatch.conformance.Subject;
                         modules in the current folder are found too
  --args.OPTION VALUE    argument of the class, such as --args.topk 9
  --args JSON            all of them, such as --args '{"topk": 9}'

An assigner names the properties that its rule breaks by definition in `conformance_exceptions`.

Exit code 0: all properties hold; 1: one does not; 2: the class cannot be made.

Example:  boxmatch check-assigner boxmatch.assign:ATSS --args.topk 9
"""


def run(arguments: Sequence[str]) -> int:
    """Check, or print the help."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    place, *options = arguments
    if place.startswith("-"):
        raise UsageError(f"expected PACKAGE.MODULE:CLASS first, got {place}")
    from boxmatch.commands.found_class import factory_of, find
    from boxmatch.conformance import Subject, check

    subject = Subject.of(factory_of(find(place), options))
    count = {"pass": 0, "FAIL": 0, "not applicable": 0}
    for verdict in check(subject):
        if not any(count.values()):
            print(f"{place} on {subject.layout.name}")
        count[verdict.outcome] += 1
        about = f"{verdict.outcome:<14}  {verdict.name:<22}"
        if verdict.outcome == "FAIL":
            print(f"{about}  {verdict.sentence}\n{'':<16}{verdict.message}", flush=True)
        else:
            print(f"{about}  {verdict.message or verdict.sentence}", flush=True)
    print(f"{count['pass']} hold, {count['FAIL']} fail, {count['not applicable']} do not apply")
    return EXIT_FAULT if count["FAIL"] else 0
