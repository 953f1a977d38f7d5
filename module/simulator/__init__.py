"""The paper exchange: a pure, deterministic engine, its market sources, and the doors to them."""
