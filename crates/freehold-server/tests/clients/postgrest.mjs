// Runs @supabase/postgrest-js, an existing client of PostgREST's URL dialect, against the data API
// of a running server with the demo shop. One line per check; the first that fails ends the run
// with exit code 1. What it makes, it removes again.
//
//   BASE_URL=http://127.0.0.1:8080 EMAIL=owner@acme.example PASSWORD=… node postgrest.mjs

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import process from 'node:process'
import { PostgrestClient } from '@supabase/postgrest-js'

const { BASE_URL, EMAIL, PASSWORD } = process.env
if (!BASE_URL || !EMAIL || !PASSWORD) {
  console.error('BASE_URL, EMAIL and PASSWORD must be set')
  process.exit(2)
}
const base = BASE_URL.replace(/\/+$/, '')

// Marks every row of this run, so that two runs do not meet and cleaning up is one filter each.
const RUN = randomBytes(4).toString('hex').toUpperCase()
const sku = (name) => `RUN-${RUN}-${name}`
const email = (name) => `${name}.${RUN.toLowerCase()}@example.com`
const NOBODY = '00000000-0000-4000-8000-000000000000'

let count = 0
async function check(name, body) {
  try {
    await body()
  } catch (error) {
    error.message = `${name}: ${error.message}`
    throw error
  }
  count += 1
  console.log(`ok ${String(count).padStart(2)} ${name}`)
}

/** The answer of a request that must succeed. */
async function answer(request, status) {
  const result = await request
  assert.equal(result.error, null, `unexpected error ${result.status}: ${JSON.stringify(result.error)}`)
  if (status !== undefined) assert.equal(result.status, status, 'status')
  return result
}

/** The rows of a request that must succeed. */
const rows = async (request, status) => (await answer(request, status)).data

/** Demands that a request is refused with this status, and that error.message matches. */
async function refused(request, status, pattern) {
  const result = await request
  assert.ok(result.error, `expected ${status}, was answered ${result.status}: ${JSON.stringify(result.data)}`)
  assert.equal(result.status, status, `status; the error is ${JSON.stringify(result.error)}`)
  assert.equal(typeof result.error.message, 'string', `error.message; the error is ${JSON.stringify(result.error)}`)
  assert.match(result.error.message, pattern)
  return result.error
}

function sorted(list, compare) {
  for (let i = 1; i < list.length; i += 1) {
    assert.ok(compare(list[i - 1], list[i]) <= 0, `rows ${i - 1} and ${i} are out of order`)
  }
}

async function signIn() {
  const response = await fetch(`${base}/v1/auth/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email: EMAIL, password: PASSWORD }),
  })
  const text = await response.text()
  assert.equal(response.status, 200, `sign-in was answered ${response.status}: ${text}`)
  const { access_token: token } = JSON.parse(text)
  assert.ok(token, `no access_token in the answer to the sign-in: ${text}`)
  return token
}

async function reading(db) {
  await check('select all columns', async () => {
    const [product] = await rows(db.from('products').select('*').limit(1), 200)
    assert.deepEqual(Object.keys(product).sort(), [
      'created_at', 'id', 'in_stock', 'name', 'price_cents', 'sku', 'stock',
    ])
    assert.equal(typeof product.price_cents, 'number')
    assert.equal(typeof product.in_stock, 'boolean')
  })
  await check('select some columns', async () => {
    const list = await rows(db.from('products').select('sku, price_cents').limit(3))
    assert.equal(list.length, 3)
    for (const row of list) assert.deepEqual(Object.keys(row), ['sku', 'price_cents'])
  })
  await check('select under another name', async () => {
    const [row] = await rows(db.from('orders').select('number:id,placed:created_at').limit(1))
    assert.deepEqual(Object.keys(row), ['number', 'placed'])
  })
  await check('select from a view', async () => {
    const list = await rows(
      db.from('order_summary').select('customer_name,line_count,total_cents')
        .order('created_at', { ascending: false }).limit(5),
    )
    assert.equal(list.length, 5)
    for (const row of list) assert.ok(row.line_count >= 1 && row.total_cents > 0)
  })

  const products = await rows(db.from('products').select('*').order('sku'))
  assert.ok(products.length >= 40, 'the demo shop has 40 products')
  const middle = products.map((p) => p.price_cents).sort((a, b) => a - b)[20]
  // Compares what a filter finds with the same filter in JavaScript.
  const finds = async (request, predicate) => {
    const found = (await rows(request)).map((p) => p.sku).sort()
    const wanted = products.filter(predicate).map((p) => p.sku).sort()
    assert.deepEqual(found, wanted)
    assert.ok(wanted.length > 0 && wanted.length < products.length, 'the case is empty or trivial')
  }
  const ask = () => db.from('products').select('sku')

  await check('eq', () => finds(ask().eq('sku', products[3].sku), (p) => p.sku === products[3].sku))
  await check('eq with a comma in the value', async () => {
    const product = products.find((p) => p.name.includes(','))
    await finds(ask().eq('name', product.name), (p) => p.name === product.name)
  })
  await check('neq', () => finds(ask().neq('sku', products[3].sku), (p) => p.sku !== products[3].sku))
  await check('gt', () => finds(ask().gt('price_cents', middle), (p) => p.price_cents > middle))
  await check('gte', () => finds(ask().gte('price_cents', middle), (p) => p.price_cents >= middle))
  await check('lt', () => finds(ask().lt('price_cents', middle), (p) => p.price_cents < middle))
  await check('lte', () => finds(ask().lte('price_cents', middle), (p) => p.price_cents <= middle))
  await check('two filters on one column', () =>
    finds(ask().gte('price_cents', 2000).lt('price_cents', middle),
      (p) => p.price_cents >= 2000 && p.price_cents < middle))
  await check('like with %', () => finds(ask().like('name', '%, small'), (p) => p.name.endsWith(', small')))
  await check('like with *', () => finds(ask().like('name', '*, small'), (p) => p.name.endsWith(', small')))
  await check('like minds the case', async () => {
    assert.deepEqual(await rows(ask().like('name', '%, SMALL')), [])
  })
  await check('ilike', () => finds(ask().ilike('name', '%, SMALL'), (p) => p.name.endsWith(', small')))
  await check('in', async () => {
    const some = [products[1].sku, products[5].sku, 'NO-SUCH']
    await finds(ask().in('sku', some), (p) => some.includes(p.sku))
  })
  await check('in with commas in the values', async () => {
    const some = products.filter((p) => p.name.includes(',')).slice(0, 3).map((p) => p.name)
    await finds(ask().in('name', some), (p) => some.includes(p.name))
  })
  await check('in an empty list', async () => assert.deepEqual(await rows(ask().in('sku', [])), []))
  await check('in, on an enum', async () => {
    const list = await rows(db.from('orders').select('status').in('status', ['cancelled', 'shipped']))
    assert.ok(list.length > 0 && list.every((o) => ['cancelled', 'shipped'].includes(o.status)))
  })
  await check('is true, is false', async () => {
    await finds(ask().is('in_stock', false), (p) => !p.in_stock)
    await finds(ask().is('in_stock', true), (p) => p.in_stock)
  })
  await check('is null', async () => {
    const list = await rows(db.from('orders').select('shipped_at').is('shipped_at', null))
    assert.ok(list.length > 0 && list.every((o) => o.shipped_at === null))
  })
  await check('not is null', async () => {
    const list = await rows(db.from('orders').select('shipped_at').not('shipped_at', 'is', null))
    assert.ok(list.length > 0 && list.every((o) => o.shipped_at !== null))
  })
  await check('not in', async () => {
    const list = await rows(db.from('orders').select('status').not('status', 'in', '(delivered,cancelled)'))
    assert.ok(list.length > 0 && list.every((o) => !['delivered', 'cancelled'].includes(o.status)))
  })
  await check('or', () =>
    finds(ask().or(`price_cents.lt.2000,stock.eq.0`), (p) => p.price_cents < 2000 || p.stock === 0))
  await check('and inside or', () =>
    finds(ask().or(`and(price_cents.gte.2000,price_cents.lt.${middle}),stock.eq.0`),
      (p) => (p.price_cents >= 2000 && p.price_cents < middle) || p.stock === 0))
  await check('not and in inside or', () =>
    finds(ask().or(`sku.in.(${products[0].sku},${products[7].sku}),in_stock.not.is.true`),
      (p) => [products[0].sku, products[7].sku].includes(p.sku) || !p.in_stock))
  await check('a quoted value inside or', async () => {
    const product = products.find((p) => p.name.includes(','))
    await finds(ask().or(`name.eq."${product.name}",stock.eq.0`),
      (p) => p.name === product.name || p.stock === 0)
  })
  await check('two or groups and a filter', () =>
    finds(ask().or('stock.eq.0,stock.gt.50').or(`price_cents.lt.2000,price_cents.gt.${middle}`).neq('sku', products[0].sku),
      (p) => (p.stock === 0 || p.stock > 50) && (p.price_cents < 2000 || p.price_cents > middle)
        && p.sku !== products[0].sku))

  await check('order descending', async () => {
    const list = await rows(db.from('orders').select('created_at').order('created_at', { ascending: false }))
    sorted(list, (a, b) => Date.parse(b.created_at) - Date.parse(a.created_at))
    assert.ok(list.length > 1)
  })
  await check('order by two columns', async () => {
    const list = await rows(
      db.from('products').select('in_stock,price_cents').order('in_stock').order('price_cents', { ascending: false }),
    )
    sorted(list, (a, b) => a.in_stock - b.in_stock || b.price_cents - a.price_cents)
  })
  await check('order with nulls first, and last', async () => {
    const first = async (options) =>
      (await rows(db.from('orders').select('shipped_at').order('shipped_at', options).limit(1)))[0].shipped_at
    assert.equal(await first({ ascending: false, nullsFirst: true }), null)
    assert.notEqual(await first({ ascending: false, nullsFirst: false }), null)
    assert.equal(await first({ ascending: true, nullsFirst: true }), null)
    assert.notEqual(await first({ ascending: true, nullsFirst: false }), null)
  })
  await check('limit', async () => assert.equal((await rows(db.from('orders').select('id').limit(7))).length, 7))
  await check('range', async () => {
    const list = await rows(db.from('products').select('sku').order('sku').range(10, 14))
    assert.deepEqual(list.map((p) => p.sku), products.slice(10, 15).map((p) => p.sku))
  })
  await check('count exact, with a page of rows', async () => {
    const result = await answer(db.from('products').select('sku', { count: 'exact' }).order('sku').range(0, 4))
    assert.equal(result.count, products.length)
    assert.equal(result.data.length, 5)
  })
  await check('count exact, without rows', async () => {
    const result = await answer(db.from('products').select('*', { count: 'exact', head: true }).eq('in_stock', false))
    assert.equal(result.count, products.filter((p) => !p.in_stock).length)
    assert.equal(result.data, null)
  })

  await check('single', async () => {
    const product = await rows(db.from('products').select('*').eq('id', products[0].id).single())
    assert.deepEqual(product, products[0])
  })
  await check('single of none is 406', () =>
    refused(db.from('products').select('*').eq('id', NOBODY).single(), 406, /./))
  await check('single of many is 406', () => refused(db.from('products').select('*').single(), 406, /./))
  await check('maybeSingle of one', async () => {
    const product = await rows(db.from('products').select('sku').eq('id', products[0].id).maybeSingle())
    assert.deepEqual(product, { sku: products[0].sku })
  })
  await check('maybeSingle of none is null', async () => {
    assert.equal(await rows(db.from('products').select('*').eq('id', NOBODY).maybeSingle()), null)
  })
  await check('maybeSingle of many is 406', () => refused(db.from('products').select('*').maybeSingle(), 406, /./))
}

async function writing(db) {
  await check('insert one, nothing returned', async () => {
    const result = await answer(db.from('products').insert({ sku: sku('A'), name: 'First', price_cents: 100 }), 201)
    assert.equal(result.data, null)
  })
  await check('insert one, returned with its defaults', async () => {
    const product = await rows(
      db.from('products').insert({ sku: sku('B'), name: 'Second', price_cents: 200 }).select().single(), 201,
    )
    assert.match(product.id, /^[0-9a-f-]{36}$/)
    assert.equal(product.stock, 0)
    assert.equal(product.in_stock, false)
    assert.ok(Date.parse(product.created_at))
  })
  await check('insert many, some columns returned', async () => {
    const list = await rows(
      db.from('products').insert([
        { sku: sku('C'), name: 'Third', price_cents: 300, stock: 3 },
        { sku: sku('D'), name: 'Fourth', price_cents: 400, stock: 4 },
      ]).select('sku,in_stock'), 201,
    )
    assert.deepEqual(list, [{ sku: sku('C'), in_stock: true }, { sku: sku('D'), in_stock: true }])
  })
  await check('insert many with unlike keys, defaults for the missing', async () => {
    const list = await rows(
      db.from('products').insert([
        { sku: sku('E'), name: 'Fifth', price_cents: 500 },
        { sku: sku('F'), name: 'Sixth', price_cents: 600, stock: 6 },
      ], { defaultToNull: false }).select('stock'), 201,
    )
    assert.deepEqual(list, [{ stock: 0 }, { stock: 6 }])
  })
  await check('values come back as they went in', async () => {
    const name = `"It's" 50% \\ off; {a,b} (c.d) — Zoë 🏡 -- '); DROP TABLE products`
    const product = await rows(
      db.from('products').insert({ sku: sku('G'), name, price_cents: 700 }).select('name').single(),
    )
    assert.equal(product.name, name)
    assert.deepEqual(await rows(db.from('products').select('sku').eq('name', name)), [{ sku: sku('G') }])
  })
  await check('upsert updates one and inserts another', async () => {
    const list = await rows(
      db.from('products').upsert([
        { sku: sku('A'), name: 'First, again', price_cents: 111 },
        { sku: sku('H'), name: 'Eighth', price_cents: 800 },
      ], { onConflict: 'sku' }).select('sku,name,price_cents'),
    )
    list.sort((a, b) => (a.sku < b.sku ? -1 : 1))
    assert.deepEqual(list, [
      { sku: sku('A'), name: 'First, again', price_cents: 111 },
      { sku: sku('H'), name: 'Eighth', price_cents: 800 },
    ])
  })
  await check('upsert that ignores duplicates', async () => {
    const list = await rows(
      db.from('products').upsert([{ sku: sku('A'), name: 'Ignored', price_cents: 1 }],
        { onConflict: 'sku', ignoreDuplicates: true }).select(),
    )
    assert.deepEqual(list, [])
    const product = await rows(db.from('products').select('name').eq('sku', sku('A')).single())
    assert.equal(product.name, 'First, again')
  })
  await check('update, nothing returned', async () => {
    const result = await answer(db.from('products').update({ stock: 12 }).eq('sku', sku('A')), 204)
    assert.equal(result.data, null)
  })
  await check('update, returned', async () => {
    const list = await rows(
      db.from('products').update({ price_cents: 999 }).in('sku', [sku('A'), sku('B')]).select('price_cents,stock'),
      200,
    )
    list.sort((a, b) => a.stock - b.stock)
    assert.deepEqual(list, [{ price_cents: 999, stock: 0 }, { price_cents: 999, stock: 12 }])
  })
  await check('update of none returns none', async () => {
    assert.deepEqual(await rows(db.from('products').update({ stock: 1 }).eq('id', NOBODY).select()), [])
  })
  await check('update with a count', async () => {
    const result = await answer(
      db.from('products').update({ stock: 2 }, { count: 'exact' }).like('sku', `RUN-${RUN}-%`),
    )
    assert.equal(result.count, 8)
  })
  await check('an order with items, and its total', async () => {
    const customer = await rows(
      db.from('customers').insert({ email: email('kim'), full_name: 'Kim Client', city: 'Oslo', country_code: 'NO' })
        .select().single(),
    )
    const order = await rows(db.from('orders').insert({ customer_id: customer.id }).select().single())
    assert.equal(order.status, 'pending')
    const parts = await rows(db.from('products').select('id').in('sku', [sku('C'), sku('D')]))
    await answer(
      db.from('order_items').insert(
        parts.map((p) => ({ order_id: order.id, product_id: p.id, quantity: 2, unit_price_cents: 250 })),
      ), 201,
    )
    const summary = await rows(db.from('order_summary').select('total_cents,unit_count').eq('id', order.id).single())
    assert.deepEqual(summary, { total_cents: 1000, unit_count: 4 })
    const note = await rows(db.from('order_notes').insert({ order_id: order.id, body: 'Leave it at the door' })
      .select().single())
    assert.match(note.author_id, /^[0-9a-f-]{36}$/)
  })
  await check('delete, returned', async () => {
    const list = await rows(db.from('products').delete().eq('sku', sku('H')).select('sku'), 200)
    assert.deepEqual(list, [{ sku: sku('H') }])
  })
  await check('delete, nothing returned', async () => {
    const result = await answer(db.from('products').delete().eq('sku', sku('G')), 204)
    assert.equal(result.data, null)
  })
  await check('delete with a count', async () => {
    const result = await answer(db.from('products').delete({ count: 'exact' }).in('sku', [sku('E'), sku('F')]))
    assert.equal(result.count, 2)
  })
}

async function refusing(db) {
  await check('no token is 401', () =>
    refused(new PostgrestClient(`${base}/v1/data`).from('products').select('sku'), 401, /./))
  await check('an unknown table is 404', () => refused(db.from('unicorns').select('*'), 404, /unicorns/))
  await check('a system table is 404', () => refused(db.from('pg_class').select('*'), 404, /pg_class/))
  await check('an unknown column in select is 400', () =>
    refused(db.from('products').select('sku,colour'), 400, /colour/))
  await check('an unknown column in a filter is 400', () =>
    refused(db.from('products').select('sku').eq('colour', 'red'), 400, /colour/))
  await check('an unknown column in or is 400', () =>
    refused(db.from('products').select('sku').or('stock.eq.0,colour.eq.red'), 400, /colour/))
  await check('an unknown column in order is 400', () =>
    refused(db.from('products').select('sku').order('colour'), 400, /colour/))
  await check('an unknown column in a body is 400', () =>
    refused(db.from('products').insert({ sku: sku('X'), name: 'X', price_cents: 1, colour: 'red' }), 400, /colour/))
  await check('a bad number in a filter is 400', () =>
    refused(db.from('products').select('sku').eq('price_cents', 'dear'), 400, /price_cents/))
  await check('a bad uuid in a filter is 400', () =>
    refused(db.from('orders').select('id').eq('customer_id', 'kim'), 400, /customer_id/))
  await check('a bad enum value in a filter is 400', () =>
    refused(db.from('orders').select('id').eq('status', 'lost'), 400, /status/))
  await check('a bad value in a body is 400', () =>
    refused(db.from('products').insert({ sku: sku('X'), name: 'X', price_cents: 'dear' }), 400, /price_cents/))
  await check('a missing value is 4xx and names the column', async () => {
    const { status, error } = await db.from('products').insert({ sku: sku('X'), price_cents: 1 })
    assert.ok(status >= 400 && status < 500, `status ${status}`)
    assert.match(error.message, /name/)
  })
  await check('a violated check is 4xx and names the constraint or the column', async () => {
    const { status, error } = await db.from('products').insert({ sku: sku('X'), name: 'X', price_cents: -1 })
    assert.ok(status >= 400 && status < 500, `status ${status}`)
    assert.match(error.message, /products_price_not_negative|price_cents/)
  })
  await check('a unique violation is 409', () =>
    refused(db.from('products').insert({ sku: sku('A'), name: 'Twin', price_cents: 1 }), 409, /products_sku_key|\bsku\b/))
  await check('a foreign key violation is 409', () =>
    refused(db.from('orders').insert({ customer_id: NOBODY }), 409, /orders_customer_id_fkey|\bcustomer_id\b/))
  await check('many rows with one bad: none is inserted', async () => {
    await refused(
      db.from('products').insert([
        { sku: sku('Y'), name: 'Good', price_cents: 1 },
        { sku: sku('A'), name: 'Twin', price_cents: 1 },
      ]), 409, /./,
    )
    assert.deepEqual(await rows(db.from('products').select('sku').eq('sku', sku('Y'))), [])
  })

  const all = async () =>
    (await answer(db.from('order_items').select('id', { count: 'exact', head: true }))).count
  await check('delete without a filter is refused, and deletes nothing', async () => {
    const before = await all()
    await refused(db.from('order_items').delete(), 400, /filter/)
    assert.equal(await all(), before)
  })
  await check('update without a filter is refused, and changes nothing', async () => {
    await refused(db.from('products').update({ stock: 77777 }), 400, /filter/)
    assert.deepEqual(await rows(db.from('products').select('sku').eq('stock', 77777)), [])
  })
}

/** Removes the rows of this run, those that others refer to last. */
async function cleanUp(db) {
  const customers = await rows(db.from('customers').select('id').eq('email', email('kim')))
  await answer(db.from('orders').delete().in('customer_id', customers.map((c) => c.id)))
  await answer(db.from('customers').delete().eq('email', email('kim')))
  await answer(db.from('products').delete().like('sku', `RUN-${RUN}-%`))
  assert.deepEqual(await rows(db.from('products').select('sku').like('sku', `RUN-${RUN}-%`)), [])
}

function explain(error) {
  const cause = error.cause ? ` (${error.cause.message || error.cause.code})` : ''
  return `${error.message}${cause}`
}

async function main() {
  let token
  await check('sign in', async () => {
    token = await signIn()
  })
  const db = new PostgrestClient(`${base}/v1/data`, { headers: { Authorization: `Bearer ${token}` } })
  let failure
  try {
    await reading(db)
    await writing(db)
    await refusing(db)
  } catch (error) {
    failure = error
  }
  try {
    await check('clean up', () => cleanUp(db))
  } catch (error) {
    // What failed first says more.
    failure ??= error
  }
  if (failure) throw failure
  console.log(`all ${count} checks passed`)
}

main().catch((error) => {
  console.error(`FAILED ${explain(error)}`)
  process.exitCode = 1
})
