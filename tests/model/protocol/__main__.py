import sys, time
from tests.model.protocol.explorer import Explorer
from tests.model.protocol.invariants import check_of
from tests.model.protocol.rules import Rules
from tests.model.protocol.clock import time_passes
from tests.model.protocol.scenarios import scenarios

wanted = sys.argv[1] if len(sys.argv) > 1 else ""
limit = int(sys.argv[2]) if len(sys.argv) > 2 else 60000
without = frozenset(sys.argv[3:])
for scenario in scenarios():
    if wanted not in scenario.name:
        continue
    begun = time.process_time()
    rules = (scenario.rules or Rules())._replace(without=without)
    result = Explorer(scenario, rules, check_of(scenario, rules), time_passes, limit=limit).run()
    print(
        f"{result.states:7} {result.transitions:7} {result.ends:5} {time.process_time() - begun:6.2f} {'' if result.complete else 'CUT'} {scenario.name}",
        flush=True,
    )
    if result.counterexample:
        print(result.counterexample.what)
        print("\n".join("  " + line for line in result.counterexample.trace))
