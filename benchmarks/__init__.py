"""Benchmarks: llama and pango beside other proxies, by the CPU time of the proxy process.

    python -m benchmarks                 every case; writes benchmarks/RESULTS.md
    python -m benchmarks --quick         a look: less work, fewer rounds, nothing written
    python -m benchmarks short bulk-up   these cases, nothing written
    python -m benchmarks --profile short where our proxy spends its time in one case

A case is one file in `cases/`: a name, a unit, a dict of peers, what load to put on them and how to read the
cost. The proxies of a case run side by side and are sampled in turn (A B A B ...), so what disturbs the
machine disturbs all; the figure is the median of the rounds' ratios. The load (`load/`) and the origin are
processes of their own and do not count. Linux only: another process's CPU time is read by its clock, its
memory from /proc.
"""
