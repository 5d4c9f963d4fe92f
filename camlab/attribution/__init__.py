"""Raw maps of any network: which layer and classes to explain, the recorded pass, and the methods."""
