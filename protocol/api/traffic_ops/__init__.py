"""The Traffic Ops family: installer ISOs, made for the machine that will boot them."""
