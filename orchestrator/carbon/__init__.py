"""How many grams is a kilowatt-hour, here and through this facility?"""
