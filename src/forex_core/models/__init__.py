"""The members of the ensemble, one file each, behind the interface of `base`."""
