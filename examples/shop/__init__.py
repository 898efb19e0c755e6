"""A shop: commands write to PostgreSQL, queries read from read models, and one setting says where those are.

Read in this order: tables.sql, events.py, views.py, projections.py, commands.py, __main__.py.
"""

from examples.shop.projections import app, order_counts, orders, products, users

__all__ = ["app", "order_counts", "orders", "products", "users"]
