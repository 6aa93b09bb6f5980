"""Parameters of an energy function, fitted to observables of the ensemble it makes."""
