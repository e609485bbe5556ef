"""The whole of Lockstep in one thread, in virtual time: what production runs, over twins of its databases, its network and its outside worlds.

One seed decides everything. `python -m lockstep_testkit.simulation --help` runs seeds; `world` puts one together; `checking` judges it from outside.
"""
