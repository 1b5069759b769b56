-- Data for one demo tenant: 60 customers, 40 products, 300 orders of the last 180 days with one
-- to five items each. Run it once, in an empty shop, as the schema's owner and with the search
-- path in the tenant's schema.
--
-- Everything is derived from the setting freehold.seed (the tenant's slug), so a tenant always
-- gets the same shop, with the same ids, and two tenants get different ones. Only the dates move:
-- they count back from now. hashtext() of the slug, a word and a number stands in for chance.

INSERT INTO customers (id, email, full_name, phone, city, country_code, created_at)
WITH seed AS (
    SELECT coalesce(nullif(current_setting('freehold.seed', true), ''), 'demo') AS slug
), words AS (
    -- 32 and 45 have no common factor: stepping through both repeats no name within 60.
    SELECT ARRAY['Ada', 'Amara', 'Anton', 'Beatriz', 'Camille', 'Carlos', 'Chiara', 'Dmitri',
                 'Eleni', 'Emeka', 'Emma', 'Farid', 'Greta', 'Hana', 'Ines', 'Ivan',
                 'Jonas', 'Kaito', 'Leila', 'Liam', 'Maja', 'Marcus', 'Mei', 'Nadia',
                 'Noah', 'Olivia', 'Priya', 'Rafael', 'Sofia', 'Thomas', 'Yusuf', 'Zoë'] AS first_names,
           ARRAY['Adeyemi', 'Almeida', 'Andersen', 'Bauer', 'Bianchi', 'Brown', 'Castillo', 'Chen',
                 'Clarke', 'Costa', 'Dubois', 'Eriksson', 'Fischer', 'García', 'Haddad', 'Hughes',
                 'Ibrahim', 'Ito', 'Jensen', 'Kaya', 'Keller', 'Khan', 'Kovács', 'Kowalski',
                 'Laurent', 'Lindqvist', 'Martin', 'Mehta', 'Meyer', 'Moreau', 'Müller', 'Nakamura',
                 'Novák', 'Okafor', 'Papadakis', 'Patel', 'Petrov', 'Rossi', 'Santos', 'Schmidt',
                 'Silva', 'Tanaka', 'Van Dijk', 'Walsh', 'Yılmaz'] AS last_names,
           ARRAY['Amsterdam NL', 'Athens GR', 'Barcelona ES', 'Berlin DE', 'Boston US', 'Bristol GB',
                 'Chicago US', 'Copenhagen DK', 'Dublin IE', 'Hamburg DE', 'Kraków PL', 'Lisbon PT',
                 'Lyon FR', 'Manchester GB', 'Milan IT', 'Osaka JP', 'Paris FR', 'Porto PT',
                 'Prague CZ', 'Stockholm SE', 'Toronto CA', 'Utrecht NL', 'Vienna AT', 'Zürich CH'] AS cities
), people AS (
    SELECT seed.slug, n,
           first_names[1 + ((hashtext(slug || ' first')::bigint & 1023) + n) % 32] AS first_name,
           last_names[1 + ((hashtext(slug || ' last')::bigint & 1023) + 7 * n) % 45] AS last_name,
           cities[1 + (hashtext(slug || ' city ' || n)::bigint & 65535) % 24] AS place,
           (hashtext(slug || ' age ' || n)::bigint & 65535) / 65536.0 AS age,
           hashtext(slug || ' phone ' || n)::bigint & 9999999 AS digits
    FROM seed, words, generate_series(1, 60) AS n
)
SELECT md5(slug || ' customer ' || n)::uuid,
       translate(lower(replace(first_name || '.' || last_name, ' ', '')), 'ëíáüéı', 'eiauei')
           || '@' || (ARRAY['example.com', 'example.net', 'example.org'])[1 + digits % 3],
       first_name || ' ' || last_name,
       CASE WHEN digits % 5 > 0 THEN '+00 555 ' || lpad(digits::text, 7, '0') END,
       left(place, -3),
       right(place, 2),
       -- Before the first order: half a year to two years ago.
       now() - interval '180 days' - interval '550 days' * age
FROM people;

INSERT INTO products (id, sku, name, price_cents, stock, created_at)
WITH seed AS (
    SELECT coalesce(nullif(current_setting('freehold.seed', true), ''), 'demo') AS slug
), shops AS (
    -- Ten articles, each with the price in cents of its simplest kind, and four kinds of each.
    SELECT ARRAY[
        'Claw hammer 1890; Cordless drill 8900; Spirit level 2450; Tape measure 990; Socket set 4590; Work gloves 1290; Hand saw 2190; Clamp 1490; Toolbox 3990; Head torch 2790',
        'Chef''s knife 5900; Cast-iron pan 4490; Coffee grinder 6990; Cutting board 2990; Kitchen scale 3490; Stock pot 5490; Mixing bowl 1690; Pepper mill 2590; Tea kettle 3890; Bread tin 1490',
        'Desk lamp 4990; Office chair 18900; Notebook 890; Fountain pen 3490; Monitor arm 9900; Filing box 1990; Whiteboard 6490; Keyboard 7990; Desk mat 2490; Paper shredder 8490',
        'Rain jacket 11900; Sleeping bag 9490; Trekking poles 5990; Camping stove 4990; Water filter 3790; Dry bag 1990; Hammock 4490; Compass 2490; Enamel mug 1090; Two-person tent 24900'
    ] AS articles,
    ARRAY['', ', small', ', large', ', set of two'] AS kinds,
    ARRAY[100, 80, 125, 190] AS price_percent
), items AS (
    SELECT slug, n, kinds[1 + (n - 1) % 4] AS kind, price_percent[1 + (n - 1) % 4] AS percent,
           split_part(articles[1 + (hashtext(slug || ' shop')::bigint & 65535) % 4], '; ', 1 + (n - 1) / 4) AS article,
           hashtext(slug || ' product ' || n)::bigint & 65535 AS pick
    FROM seed, shops, generate_series(1, 40) AS n
)
SELECT md5(slug || ' product ' || n)::uuid,
       upper(left(regexp_replace(slug, '[^a-z]', '', 'g') || 'shop', 3)) || '-' || (1000 + n),
       regexp_replace(article, ' \d+$', '') || kind,
       -- Prices end in 90 cents, whatever the kind.
       round(substring(article from '\d+$')::integer * percent / 10000.0)::integer * 100 - 10,
       CASE WHEN pick % 9 = 0 THEN 0 ELSE 3 + pick % 140 END,
       now() - interval '200 days' - interval '400 days' * (pick / 65536.0)
FROM items;

INSERT INTO orders (id, customer_id, status, shipped_at, created_at)
WITH seed AS (
    SELECT coalesce(nullif(current_setting('freehold.seed', true), ''), 'demo') AS slug
), picks AS (
    SELECT slug, n,
           (hashtext(slug || ' buyer ' || n)::bigint & 65535) / 65536.0 AS buyer,
           (hashtext(slug || ' when ' || n)::bigint & 65535) / 65536.0 AS moment,
           (hashtext(slug || ' parcel ' || n)::bigint & 65535) / 65536.0 AS parcel,
           hashtext(slug || ' fate ' || n)::bigint & 65535 AS fate
    FROM seed, generate_series(1, 300) AS n
), ages AS (
    -- The powers make recent orders, and a few customers, more frequent than the rest.
    SELECT *, interval '179 days' * power(moment, 1.4) + interval '1 minute' * n AS age,
           1 + floor(60 * power(buyer, 1.7))::integer AS customer
    FROM picks
), states AS (
    SELECT *,
           CASE WHEN fate % 16 = 0 THEN 'cancelled'
                WHEN age < interval '1 day' THEN (ARRAY['pending', 'paid'])[1 + fate % 2]
                WHEN age < interval '4 days' THEN (ARRAY['paid', 'shipped'])[1 + fate % 2]
                WHEN age < interval '9 days' THEN (ARRAY['shipped', 'delivered'])[1 + fate % 2]
                ELSE 'delivered'
           END::order_status AS status
    FROM ages
)
SELECT md5(slug || ' order ' || n)::uuid,
       md5(slug || ' customer ' || customer)::uuid,
       status,
       -- Within the first day.
       CASE WHEN status IN ('shipped', 'delivered')
            THEN now() - age + interval '3 hours' + interval '20 hours' * parcel END,
       now() - age
FROM states;

-- The trigger on this table fills in orders.total_cents.
INSERT INTO order_items (id, order_id, product_id, quantity, unit_price_cents, created_at)
WITH seed AS (
    SELECT coalesce(nullif(current_setting('freehold.seed', true), ''), 'demo') AS slug
), baskets AS (
    SELECT slug, n,
           (ARRAY[1, 1, 1, 2, 2, 2, 3, 3, 4, 5])[1 + (hashtext(slug || ' size ' || n)::bigint & 65535) % 10] AS size,
           hashtext(slug || ' basket ' || n)::bigint & 65535 AS start,
           -- Each of these steps through 40 products without meeting one twice.
           (ARRAY[1, 3, 7, 9, 11, 13, 17, 19])[1 + (hashtext(slug || ' step ' || n)::bigint & 7)] AS step
    FROM seed, generate_series(1, 300) AS n
), lines AS (
    SELECT slug, n, line,
           md5(slug || ' product ' || (1 + (start + line * step) % 40))::uuid AS product_id,
           hashtext(slug || ' quantity ' || n || ' ' || line)::bigint & 15 AS pick
    FROM baskets, generate_series(1, size) AS line
)
SELECT md5(slug || ' item ' || n || ' ' || line)::uuid,
       orders.id,
       products.id,
       CASE WHEN pick < 10 THEN 1 WHEN pick < 14 THEN 2 ELSE pick - 11 END,
       products.price_cents,
       orders.created_at
FROM lines
JOIN orders ON orders.id = md5(slug || ' order ' || n)::uuid
JOIN products ON products.id = lines.product_id;
