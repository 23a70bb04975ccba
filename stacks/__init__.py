"""What is declared, by the user of this repository: environments.py and estate.py are yours to edit."""
