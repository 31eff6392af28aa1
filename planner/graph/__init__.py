"""What is computed: operators, Transformers as graphs of them, one rank's view of a graph."""
