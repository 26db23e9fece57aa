"""Profiles of the property tests, and databases for the tests that need one."""

from hypothesis import Phase, settings

#: For trying mutants: that a test fails is enough, the smallest example is not wanted.
settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
