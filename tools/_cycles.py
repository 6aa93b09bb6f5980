"""Cycles of a directed graph, given as node -> the nodes that it points to."""

from collections import deque

Graph = dict[str, set[str]]


def cycles(graph: Graph) -> list[list[str]]:
    """One shortest cycle of each strongly connected component, from its smallest node, which stands at both ends."""
    return sorted(_shortest_cycle({name: graph[name] & component for name in component}) for component in _knots(graph))


def _knots(graph: Graph) -> list[set[str]]:
    """The strongly connected components of more than one node."""
    after = {name: _reached(graph, name) for name in graph}
    found, seen = [], set()
    for name in sorted(graph):
        component = {other for other in after[name] if name in after[other]}
        if component and name not in seen:
            found.append(component)
            seen |= component
    return found


def _reached(graph: Graph, start: str) -> set[str]:
    """The nodes that some way of one step or more leads to from `start`."""
    found, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting.extend(new)
    return found


def _shortest_cycle(graph: Graph) -> list[str]:
    """Among the shortest the first in the order of names."""
    found = (_cycle_through(graph, start) for start in sorted(graph))
    return min(found, key=len)


def _cycle_through(graph: Graph, start: str) -> list[str]:
    """A shortest way from a node of a component back to it."""
    before, waiting = {}, deque([start])
    while start not in before:
        node = waiting.popleft()
        for target in sorted(graph[node] - before.keys()):
            before[target] = node
            waiting.append(target)
    way = [start, before[start]]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]
