"""What a process shows of itself: OpenMetrics over plain HTTP, read-only, from memory.

A definition names a metric once; its instrument, its page and its documentation come from it. What is known only from rows is read by a periodic query on a
connection of its own (`sampling`), never while somebody scrapes and never where settlements run. Labels have few values: no plan, leg or person is one.
"""
