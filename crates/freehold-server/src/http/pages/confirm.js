// What stands behind the link in a letter. The token is in the fragment, which no server is told; this
// page asks what it is for, says so, and sends it only when the person presses the button.
//
// All text goes in by textContent: names of tenants and people were written by others.

/** After so long there is no answer; the server gives up sooner. */
const ANSWER_MS_MAX = 60_000
const PASSWORD_CHARACTERS_MIN = 8

const byId = (id) => document.getElementById(id)
const [page, title, story, form, outcome, send, again, expiry, shown] =
  ['page', 'title', 'story', 'form', 'outcome', 'send', 'again', 'expiry', 'shown'].map(byId)

const field = (id) => ({ row: byId(`${id}-row`), input: byId(id), error: byId(`${id}-error`) })
const fields = { slug: field('slug'), name: field('name'), password: field('password') }
const email = { row: byId('email-row'), input: byId('email') }

// ---- What is said ---------------------------------------------------------------------------
//
// A paragraph is a list of its parts.

/**
 * What others wrote, kept from changing how the text around it is read. <bdi> isolates it; a control
 * character could end that isolation early, so those go.
 */
function theirs(text) {
  const element = document.createElement('bdi')
  element.textContent = String(text ?? '').replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, '')
  return element
}

const place = (tenant) =>
  tenant ? ['“', theirs(tenant.name), '” (', theirs(tenant.slug), ')'] : ['your new place']

const NOT_YOU = ['If you did not ask for this, close this page. Nothing has happened, and nothing will.']
const SIGN_IN = ['You can sign in now.']

/** The change of an address has two letters; each is half of it. */
const address = {
  path: 'v1/auth/address/confirm',
  done: (answer, { addresses }) => {
    if (answer.changed) {
      return {
        title: 'Your address is changed',
        story: [['Your address is ', theirs(addresses?.new), ' now.'], ['You can sign in now, with the new address.']],
      }
    }
    const other = addresses?.[answer.waits_for]
    return {
      title: 'This half is done',
      story: [
        ['The address stays as it is until the other letter is confirmed, too.'],
        other ? ['Open the letter that was sent to ', theirs(other), '.'] : ['Open the other letter.'],
      ],
    }
  },
}

/** For each kind of link: what it is for, where the button sends it, and what is said afterwards. */
const KINDS = {
  sign_up: {
    path: 'v1/signup/confirm',
    title: 'Confirm your address',
    button: 'Confirm and create',
    story: ({ tenant, email }) => [
      ['Somebody signed up with the address ', theirs(email), ', to create ', ...place(tenant), '.'],
      ['When you press the button, the address is confirmed, and “', theirs(tenant?.name), '” is created with you as its owner.'],
      NOT_YOU,
    ],
    done: (answer) => ({
      title: 'Your address is confirmed',
      story: [[...place(answer), ' is created, and you are its owner.'], SIGN_IN],
    }),
  },
  invitation: {
    path: 'v1/invitations/accept',
    title: 'You are invited',
    button: 'Accept the invitation',
    story: ({ tenant, email, role }) => [
      [...place(tenant), ' invites ', theirs(email), ' to join, with the role ', theirs(role), '.'],
      ['When you press the button, you belong to it. If you do not want this, close this page.'],
    ],
    done: (answer) => ({
      title: 'You have joined',
      story: [['You belong to ', ...place(answer), ' now.'], SIGN_IN],
    }),
  },
  reset: {
    path: 'v1/auth/reset/confirm',
    title: 'Choose a new password',
    button: 'Set the new password',
    story: ({ email }) => [
      ['A new password was asked for, for the address ', theirs(email), '.'],
      ['When you press the button, the password below replaces the present one, and you are signed out everywhere.'],
      NOT_YOU,
    ],
    done: () => ({ title: 'Your new password is set', story: [['It replaces the former one.'], SIGN_IN] }),
  },
  address_leave: {
    ...address,
    title: 'Agree to your new address',
    button: 'Agree to the change',
    story: ({ addresses }) => [
      ['Your address is to change from ', theirs(addresses?.old), ' to ', theirs(addresses?.new), '.'],
      ['When you press the button, you agree to it. It changes when the letter to the new address is confirmed, too.'],
      ['If you did not ask for this, do not press it: somebody knows your password. Change the password.'],
    ],
  },
  address_proof: {
    ...address,
    title: 'Confirm your new address',
    button: 'Confirm this address',
    story: ({ addresses }) => [
      ['The address ', theirs(addresses?.new), ' is to replace ', theirs(addresses?.old), '.'],
      ['When you press the button, you confirm that it is yours. It changes when the letter to the present address is confirmed, too.'],
      NOT_YOU,
    ],
  },
}

/** For each answer to which password is asked. */
const PASSWORDS = {
  choose: {
    label: 'Choose a password',
    hint: `${PASSWORD_CHARACTERS_MIN} characters or more.`,
    autocomplete: 'new-password',
  },
  repeat: {
    label: 'Your password',
    hint: 'The one that you chose when you signed up.',
    autocomplete: 'current-password',
  },
  own: {
    label: 'Your password',
    hint: 'This address has an account already: its present password.',
    autocomplete: 'current-password',
  },
}

/** What to do about a link that does not work, by how its token begins. */
const ADVICE = {
  fhs_: 'If you have confirmed it already, sign in. Otherwise sign up once more.',
  fhi_: 'If you have accepted it already, sign in. Otherwise ask whoever invited you to do it again.',
  fhp_: 'If you have set the new password already, sign in. All links end when one is used. Otherwise ask for a new password once more.',
  fha_: 'If your address has not changed, ask for the change once more.',
}
const NO_ADVICE = 'Open the link in your letter once more. If you copied it, copy all of it.'

const NOT_REACHED = 'The service could not be reached. Look at your connection, then try again.'

function say(element, paragraphs, kind = '') {
  element.replaceChildren(
    ...paragraphs.map((parts) => {
      const paragraph = document.createElement('p')
      paragraph.className = kind
      paragraph.append(...parts)
      return paragraph
    }),
  )
}

/** The heading gets the focus, so that it is read out and the next Tab leads to what is below. */
function head(text) {
  title.textContent = text
  document.title = text
  title.focus()
}

// ---- Asking the service ---------------------------------------------------------------------

/** The status is 0 if there was no answer. */
async function post(path, body) {
  const request = {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    credentials: 'omit',
    redirect: 'error',
    signal: AbortSignal.timeout(ANSWER_MS_MAX),
  }
  try {
    // Relative, like all addresses here.
    const response = await fetch(path, request)
    const { status } = response
    const isJson = /\bjson\b/.test(response.headers.get('Content-Type') ?? '')
    const text = await response.text()
    // What stands between may answer 200 with a page of its own, and has done nothing.
    const ok = response.ok && (isJson || status === 204)
    return { ok, status, body: isJson && text !== '' ? JSON.parse(text) : {} }
  } catch {
    return { ok: false, status: 0, body: {} }
  }
}

const isUnknown = ({ status, body }) => status === 404 || status === 410 || body.field === 'token'

const problem = ({ status, body }) => {
  if (status === 0) return NOT_REACHED
  return body.detail || `The service could not do it (${status}). Try again in a moment.`
}

// ---- One link -------------------------------------------------------------------------------

let token = ''
/** What the service says that it is for. */
let link = null
/** Counts links: what comes late for a former one is not shown. */
let turn = 0
let sending = false

function wait(isBusy) {
  page.setAttribute('aria-busy', String(isBusy))
  send.disabled = isBusy
}

function clear() {
  wait(false)
  link = null
  sending = false
  form.hidden = true
  again.hidden = true
  form.reset()
  conceal()
  clearErrors()
  for (const { row } of [email, ...Object.values(fields)]) row.hidden = true
  for (const element of [story, outcome, expiry]) element.replaceChildren()
}

function clearErrors() {
  for (const { input, error } of Object.values(fields)) {
    input.removeAttribute('aria-invalid')
    error.textContent = ''
  }
  outcome.replaceChildren()
}

/** A browser may keep what is in a text field. */
function conceal() {
  shown.checked = false
  fields.password.input.type = 'password'
}

function read() {
  token = location.hash.slice(1)
  // Out of sight, of the history and of whoever copies the address.
  history.replaceState(null, '', location.pathname + location.search)
  inspect()
}

async function inspect() {
  const mine = ++turn
  clear()
  if (token === '') return giveUp()
  wait(true)
  say(outcome, [['One moment …']])
  const answer = await post('v1/links/inspect', { token })
  if (mine !== turn) return
  clear()
  if (isUnknown(answer)) return giveUp()
  if (!answer.ok || !Object.hasOwn(KINDS, answer.body.kind)) {
    head('The link could not be looked at')
    say(outcome, [[problem(answer)]], 'error')
    again.hidden = false
    return
  }
  link = answer.body
  show()
}

function show() {
  const kind = KINDS[link.kind]
  head(kind.title)
  say(story, kind.story(link))
  send.textContent = kind.button
  const asked = PASSWORDS[link.password]
  if (asked) {
    email.row.hidden = false
    email.input.value = link.email
    fields.password.row.hidden = false
    fields.password.input.autocomplete = asked.autocomplete
    byId('password-label').textContent = asked.label
    byId('password-hint').textContent = asked.hint
  }
  fields.name.row.hidden = !(link.kind === 'invitation' && link.password === 'choose')
  const end = new Date(link.expires_at)
  if (!Number.isNaN(end.valueOf())) {
    const time = document.createElement('time')
    time.dateTime = end.toISOString()
    time.textContent = end.toLocaleString('en-GB', {
      day: 'numeric', month: 'long', year: 'numeric', hour: '2-digit', minute: '2-digit', timeZoneName: 'short',
    })
    expiry.append('The link is good once, until ', time, '.')
  }
  form.hidden = false
}

/**
 * There is nothing that can be done with this link. If it was good when the page was opened, it is
 * likely that the button has used it: a browser sends twice where a connection breaks.
 */
function giveUp(wasGood = false) {
  const advice = ADVICE[token.slice(0, 4)] ?? NO_ADVICE
  const after = wasGood ? 'It was good a moment ago, so what you confirmed may be done. Try to sign in.' : advice
  clear()
  head('This link does not work')
  say(story, [['It is unknown, was used already, or has expired.'], [after]])
}

function finish(done) {
  token = ''
  clear()
  head(done.title)
  say(outcome, done.story)
}

/** Beside the field at fault if it is there to be seen, else below the button. */
function refuse(answer) {
  const named = answer.body.code === 'slug_taken' ? 'slug' : answer.body.field
  // Who is refused outright has given no other proof than the password.
  const name = named ?? (answer.status === 401 ? 'password' : '')
  if (name === 'slug' && fields.slug.row.hidden) {
    fields.slug.row.hidden = false
    fields.slug.input.value = link.tenant?.slug ?? ''
  }
  const at = Object.hasOwn(fields, name) && !fields[name].row.hidden ? fields[name] : null
  if (at) {
    complain(at, problem(answer))
    return
  }
  // An error of the service's own says what became of it; no answer, or one of a proxy, does not.
  const doubt = answer.body.code ? [] : [['It may have worked all the same; the link is used then.']]
  say(outcome, [[problem(answer)], ...doubt], 'error')
  send.focus()
}

function complain({ input, error }, text) {
  error.textContent = text
  input.setAttribute('aria-invalid', 'true')
  input.focus()
  input.select()
}

/** Spares a round trip; every rule is the service's. */
function isFilled() {
  const { row, input } = fields.password
  if (row.hidden) return true
  if (input.value === '') {
    complain(fields.password, 'the password is missing')
    return false
  }
  if (link.password === 'choose' && [...input.value].length < PASSWORD_CHARACTERS_MIN) {
    complain(fields.password, `the password needs ${PASSWORD_CHARACTERS_MIN} characters or more`)
    return false
  }
  return true
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  // A disabled button is not enough: Enter in a field comes here, too.
  if (sending || !link) return
  clearErrors()
  conceal()
  if (!isFilled()) return
  const body = { token }
  for (const [name, { row, input }] of Object.entries(fields)) {
    const value = name === 'password' ? input.value : input.value.trim()
    if (!row.hidden && value !== '') body[name] = value
  }
  const mine = turn
  sending = true
  wait(true)
  say(outcome, [['One moment …']])
  const answer = await post(KINDS[link.kind].path, body)
  if (mine !== turn) return
  sending = false
  wait(false)
  outcome.replaceChildren()
  if (answer.ok) return finish(KINDS[link.kind].done(answer.body, link))
  if (isUnknown(answer)) return giveUp(true)
  refuse(answer)
})

shown.addEventListener('change', () => {
  fields.password.input.type = shown.checked ? 'text' : 'password'
})
again.addEventListener('click', inspect)
// Another link was opened in the same tab.
addEventListener('hashchange', () => {
  if (location.hash !== '') read()
})
read()
