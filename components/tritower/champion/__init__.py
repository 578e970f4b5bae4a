"""The champion: which model is in use, and where the features' state ends; one small file that runs find by themselves."""
