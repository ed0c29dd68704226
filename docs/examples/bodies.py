"""A JSON body, checked against a class.

    $ curl --json '{"customer":"ada","lines":[{"product":"tea","price":2.5,"count":2}]}' \
        http://127.0.0.1:8000/orders
    {"customer":"ada","total":5.0}

Every problem has its place:

    $ curl -i --json '{"lines":[{"product":"tea","price":"2.5"},{"price":-1}]}' \
        http://127.0.0.1:8000/orders
    HTTP/1.1 422
    content-type: application/json

    {"detail":[
      {"loc":["body","customer"],"msg":"Field required","type":"missing"},
      {"loc":["body","lines",0,"price"],"msg":"Input should be a valid number",
       "type":"float_parsing"},
      {"loc":["body","lines",1,"product"],"msg":"Field required","type":"missing"},
      {"loc":["body","lines",1,"price"],"msg":"Input should be greater than 0",
       "type":"greater_than"}]}

Several body parameters are members of one object:

    $ curl -X PUT --json '{"line":{"product":"tea","price":3},"reason":"sale"}' \
        http://127.0.0.1:8000/orders/7
    {"id":7,"product":"tea","reason":"sale"}
"""

from typing import Annotated

from msgspec import Meta, Struct

from trioweb import App, Body

app = App()

Price = Annotated[float, Meta(gt=0)]


class Line(Struct):
    product: str
    price: Price
    count: int = 1


class Order(Struct):
    customer: str
    lines: list[Line]


@app.post("/orders", status_code=201)
async def create_order(order: Order):
    total = sum(line.price * line.count for line in order.lines)
    return {"customer": order.customer, "total": total}


@app.put("/orders/{order_id}")
async def change_order(order_id: int, line: Line, reason: Annotated[str, Body()]):
    return {"id": order_id, "product": line.product, "reason": reason}
