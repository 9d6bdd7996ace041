"""What messages cost: scripted agents of ours beside AutoGen-core's and AgentScope's, in one run.

Nobody has a model: an agent answers what it is told. A round trip is one request and its answer; a delivery is one
message in the hands of one listener. Theirs keep no record, so our figure without the log is the like of theirs;
ours with every event on the disk must still be far ahead.
"""

import argparse
import asyncio
import dataclasses
import statistics
import subprocess
import time

import comparison

LISTENERS = 100


@dataclasses.dataclass
class Text:
    content: str


async def autogen(trips, rounds):
    from autogen_core import (
        AgentId,
        DefaultTopicId,
        MessageContext,
        RoutedAgent,
        SingleThreadedAgentRuntime,
        TypeSubscription,
        message_handler,
    )

    heard = 0

    class Echo(RoutedAgent):
        @message_handler
        async def answer(self, message: Text, ctx: MessageContext) -> Text:
            return message

    class Listener(RoutedAgent):
        @message_handler
        async def listen(self, message: Text, ctx: MessageContext) -> None:
            nonlocal heard
            heard += 1

    runtime = SingleThreadedAgentRuntime()
    await Echo.register(runtime, "echo", lambda: Echo("echo"))
    for number in range(LISTENERS):
        await Listener.register(runtime, f"listener{number}", lambda: Listener("listener"))
        await runtime.add_subscription(TypeSubscription("news", f"listener{number}"))
    runtime.start()
    echo = AgentId("echo", "default")
    await runtime.send_message(Text("warm"), echo)
    begun = time.perf_counter()
    # Sixty-four side by side, as ours.
    for _ in range(trips // 64):
        await asyncio.gather(*(runtime.send_message(Text("ping"), echo) for _ in range(64)))
    speed = trips // 64 * 64 / (time.perf_counter() - begun)
    topic = DefaultTopicId("news")
    await runtime.publish_message(Text("warm"), topic)
    await runtime.stop_when_idle()
    assert heard == LISTENERS, f"{heard} of {LISTENERS} listeners heard"
    runtime.start()
    begun = time.perf_counter()
    for _ in range(rounds):
        await runtime.publish_message(Text("ping"), topic)
    await runtime.stop_when_idle()
    took = time.perf_counter() - begun
    assert heard == LISTENERS * (rounds + 1), f"{heard} deliveries"
    return speed, LISTENERS * rounds / took


async def agentscope(trips, rounds):
    from agentscope.agent import AgentBase
    from agentscope.message import Msg
    from agentscope.pipeline import MsgHub

    heard = 0

    class Echo(AgentBase):
        async def reply(self, msg):
            return msg

        async def observe(self, msg):
            nonlocal heard
            heard += 1

    echo, message = Echo(), Msg("user", "ping", "user")
    await echo(message)
    begun = time.perf_counter()
    for _ in range(trips // 64):
        await asyncio.gather(*(echo(message) for _ in range(64)))
    speed = trips // 64 * 64 / (time.perf_counter() - begun)
    async with MsgHub([Echo() for _ in range(LISTENERS)]) as hub:
        heard = 0
        begun = time.perf_counter()
        for _ in range(rounds):
            await hub.broadcast(message)
        took = time.perf_counter() - begun
    assert heard == LISTENERS * rounds, f"{heard} deliveries"
    return speed, heard / took


def ours(program):
    lines = subprocess.run([program, "round_trips", "latency", "broadcast", "spawn"], check=True,
                           capture_output=True, text=True, cwd=comparison.ROOT).stdout.splitlines()
    return {name: float(value) for name, value, _ in (line.split() for line in lines)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trips", type=int, default=12_800)
    parser.add_argument("--broadcasts", type=int, default=300)
    parser.add_argument("--soak", action="store_true", help="ten million messages as well")
    options = parser.parse_args()
    figures = comparison.Figures()
    build = ["-p", "polylogue-sim", "--example", "messages"]
    program = comparison.built("POLYLOGUE_MESSAGES", build, "examples/messages")
    peers = {"autogen": autogen, "agentscope": agentscope}
    found = {name: [] for name in ["ours", *peers]}
    for turn in range(options.rounds):
        found["ours"].append(ours(program))
        for name, peer in peers.items():
            trips, deliveries = asyncio.run(peer(options.trips, options.broadcasts))
            found[name].append({"round_trips": trips, "broadcast": deliveries})
        comparison.say(f"round {turn + 1}: {({name: all[-1] for name, all in found.items()})}")
    units = {"round_trips": "round_trips/s", "broadcast": "deliveries/s"}
    for peer in peers:
        for what, unit in units.items():
            theirs = [one[what] for one in found[peer]]
            figures.add(f"messages.{peer}.{what}", statistics.median(theirs), unit)
            for kept, bar in [("unrecorded", 50), ("recorded", 20)]:
                mine = [one[f"{what}.{kept}"] for one in found["ours"]]
                ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
                name = f"messages.{peer}.{what}.{kept}.ratio"
                figures.add(f"{name}.lowest", min(ratios), "ratio")
                figures.add(f"{name}.highest", max(ratios), "ratio")
                bar = bar if peer == "autogen" else None
                figures.add(name, statistics.median(ratios), "ratio", at_least=bar)
    for name in found["ours"][0]:
        value = statistics.median(one[name] for one in found["ours"])
        unit = "us" if name.startswith("latency") else units.get(name.split(".")[0], "agents/s")
        most = 50 if name.endswith("p99") else None
        least = 100_000 if name == "spawn" else None
        figures.add(f"messages.{name}", value, unit, at_most=most, at_least=least)
    if options.soak:
        lines = subprocess.run([program, "soak"], check=True, capture_output=True, text=True).stdout
        soak = {name: float(value) for name, value, _ in (line.split() for line in lines.splitlines())}
        figures.add("messages.soak.messages", soak["soak.messages"], "messages", at_least=1e7)
        grown = soak["soak.memory.last_quarter"] / soak["soak.memory.first_quarter"]
        figures.add("messages.soak.memory.grown", grown, "ratio", at_most=1.1)
    figures.finish()


if __name__ == "__main__":
    main()
