"""Training: the program that torchrun starts once per GPU, and what it shares with the job."""
