"""One set of cases for the simulation's Postgres in memory and for the real one."""
