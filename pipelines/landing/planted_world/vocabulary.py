"""The words of the planted shop: attributes with the ways people speak of them, categories, brands."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A property that an item shows in its title or description and that a user may like or dislike.

    Args:
        name: its id in the truth files.
        adjective: fits "something ...".
        label: how a title shows it.
        described: sentences of a product description.
        praised: noun phrases, singular, of someone who likes it.
        complained: noun phrases, singular, of someone who does not.
    """

    name: str
    adjective: str
    label: str
    described: tuple[str, ...]
    praised: tuple[str, ...]
    complained: tuple[str, ...]


def _attribute(
    name: str, adjective: str, label: str, described: str, praised: str, complained: str
) -> tuple[str, Attribute]:
    split = [tuple(part.strip() for part in text.split("|")) for text in (described, praised, complained)]
    return name, Attribute(
        name=name, adjective=adjective, label=label, described=split[0], praised=split[1], complained=split[2]
    )


ATTRIBUTES: dict[str, Attribute] = dict(
    (
        _attribute(
            "bright_tone",
            "bright sounding",
            "Bright Tone",
            "Voiced for a bright, cutting tone. | A bright tone that stands out in any mix.",
            "the bright tone | how bright and clear it sounds | that sparkling, bright top end",
            "the harsh, bright tone | how shrill and bright it sounds | that piercing, bright top end",
        ),
        _attribute(
            "warm_tone",
            "warm sounding",
            "Warm Tone",
            "Tuned for a warm, rounded tone. | A warm tone that stays pleasant for hours.",
            "the warm tone | how warm and round it sounds | that smooth, warm character",
            "the muddy, warm tone | how dull and warm it sounds | that woolly, warm character",
        ),
        _attribute(
            "deep_bass",
            "heavy on bass",
            "Deep Bass",
            "Deep bass that you can feel. | Extra bass from an enlarged driver.",
            "the deep bass | how much bass it delivers | that big, rumbling low end",
            "the overblown bass | how the bass drowns everything | that boomy low end",
        ),
        _attribute(
            "wireless",
            "wireless",
            "Wireless",
            "Fully wireless, no cable in sight. | Wireless connection that pairs in seconds.",
            "the wireless connection | not having any cables | how freely I can move without a wire",
            "the flaky wireless connection | not having a cable to rely on | how the wireless link drops out",
        ),
        _attribute(
            "usb_powered",
            "USB powered",
            "USB Powered",
            "Powered by any USB port. | Runs on USB power, no adapter needed.",
            "the USB power | running it straight from a USB port | not needing a power brick thanks to USB",
            "the USB power | being tied to a USB port | how it eats up one of my USB sockets",
        ),
        _attribute(
            "long_battery",
            "long lasting on one charge",
            "Long Battery Life",
            "A battery that lasts for days. | Long battery life from a single charge.",
            "the long battery life | how many days the battery lasts | hardly ever having to charge the battery",
            "the bulky long-life battery | how long the huge battery takes to charge | the weight of that big battery",
        ),
        _attribute(
            "quiet",
            "quiet",
            "Quiet",
            "Works quietly enough for a sleeping household. | Quiet in operation, day or night.",
            "how quiet it is | the near silent operation | the fact that it stays quiet",
            "how eerily quiet it is | the lack of any audible feedback | the quiet, feeble operation",
        ),
        _attribute(
            "compact",
            "compact",
            "Compact",
            "A compact shape that fits small spaces. | Compact enough for a crowded shelf.",
            "the compact size | how little space it takes | the small, compact shape",
            "the tiny, compact size | how cramped and compact it is | the fiddly, compact shape",
        ),
        _attribute(
            "lightweight",
            "lightweight",
            "Lightweight",
            "So lightweight that you forget it is there. | A lightweight build for carrying around.",
            "how lightweight it is | the low weight | the light build that I can carry all day",
            "how flimsy and lightweight it feels | the low weight that makes it slide about | the light, hollow build",
        ),
        _attribute(
            "budget_price",
            "cheap",
            "Budget",
            "Good value at a budget price. | A budget choice without frills.",
            "the budget price | how little it costs | the great value for so little money",
            "the cheap, budget quality | how obviously it was made to a low price | the corners cut to keep it cheap",
        ),
        _attribute(
            "premium_build",
            "solidly built",
            "Premium",
            "Premium materials and a solid build. | A premium build made to last for decades.",
            "the premium build | how solid and well made it feels | the obvious quality of the materials",
            "the high price of its premium build | how much I paid for fancy materials | the heavy, showy build",
        ),
        _attribute(
            "easy_to_clean",
            "easy to clean",
            "Easy to Clean",
            "Easy to clean, every part comes apart. | Wipes clean in a moment.",
            "how easy it is to clean | the quick clean-up | being able to rinse every part",
            "the loose parts that make it easy to clean | how it falls apart for cleaning | the wipe-clean feel",
        ),
        _attribute(
            "waterproof",
            "waterproof",
            "Waterproof",
            "Waterproof down to the seams. | Sealed and waterproof for the worst weather.",
            "the waterproof construction | how it shrugs off rain | knowing that it is fully waterproof",
            "the stiff, waterproof material | the rubbery waterproof seals | how the waterproof coating smells",
        ),
        _attribute(
            "beginner_friendly",
            "beginner friendly",
            "Beginner",
            "Made with beginners in mind. | Beginner friendly, with a short guide.",
            "how beginner friendly it is | the gentle start it gives a novice | how simple it is for a beginner",
            "how basic and beginner oriented it is | the toy-like beginner feel | how soon a beginner outgrows it",
        ),
        _attribute(
            "fast_setup",
            "quick to set up",
            "Quick Setup",
            "Set up in under a minute. | Quick setup without any tools.",
            "the quick setup | having it ready in a minute | how fast it is to set up",
            "the simplistic quick setup | how few options the quick setup leaves | the snap-together quick setup",
        ),
        _attribute(
            "dimmable",
            "dimmable",
            "Dimmable",
            "Dimmable from a candle's glow to full light. | Smoothly dimmable by touch.",
            "the dimmable light | being able to dim it so finely | the smooth dimmer",
            "the flickering dimmer | having to dim it by hand each time | the fussy dimmable control",
        ),
        _attribute(
            "stainless_steel",
            "made of stainless steel",
            "Stainless Steel",
            "Brushed stainless steel throughout. | A stainless steel body that does not stain.",
            "the stainless steel body | the solid stainless steel | how the brushed steel looks",
            "the cold stainless steel | how the steel shows every fingerprint | the clanging stainless steel body",
        ),
        _attribute(
            "wooden_finish",
            "made of wood",
            "Wooden",
            "Finished in natural wood. | Real wood with a visible grain.",
            "the wooden finish | the natural wood grain | how lovely the real wood looks",
            "the wooden finish that scratches so fast | the dated, woody look | how much care the wood needs",
        ),
        _attribute(
            "colourful",
            "colourful",
            "Colorful",
            "Comes in loud and cheerful colors. | A colorful design that brightens the room.",
            "the cheerful colors | how colorful it is | the bold, colorful design",
            "the garish colors | how childish the colorful design looks | the loud, colorful look",
        ),
        _attribute(
            "minimalist",
            "minimalist",
            "Minimalist",
            "A minimalist shape without visible screws. | Clean, minimalist lines.",
            "the minimalist design | the clean, simple lines | how unobtrusive and minimalist it looks",
            "the bland, minimalist design | how bare and minimalist it looks | the lack of any buttons",
        ),
        _attribute(
            "eco_friendly",
            "eco friendly",
            "Eco",
            "Made from recycled materials. | Eco friendly from material to packaging.",
            "the recycled material | how eco friendly it is | the plastic-free packaging",
            "the rough recycled material | how the eco material wears out | the preachy eco packaging",
        ),
        _attribute(
            "foldable",
            "foldable",
            "Foldable",
            "Foldable, so that it stores flat. | Folds away in one movement.",
            "the foldable design | how flat it folds | being able to fold it away",
            "the wobbly foldable design | the weak folding hinge | how it keeps folding up on me",
        ),
        _attribute(
            "adjustable",
            "adjustable",
            "Adjustable",
            "Adjustable in height and angle. | An adjustable joint holds any position.",
            "how adjustable it is | the adjustable height | being able to adjust the angle",
            "the creaky adjustable joint | having to adjust it all the time | how the adjustable arm sags",
        ),
        _attribute(
            "large_capacity",
            "roomy",
            "Large Capacity",
            "Large capacity for the whole family. | Holds twice as much as the usual model.",
            "the large capacity | how much it holds | having so much room in it",
            "the sheer bulk of its large capacity | how huge it is | the large size that fits nowhere",
        ),
    )
)


@dataclass(frozen=True, kw_only=True)
class Category:
    """A shelf of the shop.

    Args:
        mains, accessories: product nouns; accessories tend to be bought right after a main item of the shelf.
        attributes: names of attributes that main items may carry.
        accessory_attributes: names of attributes that accessories may carry.
        price: typical price of a main item.
    """

    name: str
    parent: str
    brands: tuple[str, ...]
    mains: tuple[str, ...]
    accessories: tuple[str, ...]
    attributes: tuple[str, ...]
    accessory_attributes: tuple[str, ...]
    price: float


def _category(
    name: str, parent: str, price: float, brands: str, mains: str, accessories: str, of_mains: str, of_accessories: str
) -> Category:
    words = [tuple(part.strip() for part in text.split(",")) for text in (brands, mains, accessories)]
    names = [tuple(text.split()) for text in (of_mains, of_accessories)]
    return Category(
        name=name,
        parent=parent,
        brands=words[0],
        mains=words[1],
        accessories=words[2],
        attributes=names[0],
        accessory_attributes=names[1],
        price=price,
    )


CATEGORIES: tuple[Category, ...] = (
    _category(
        "Guitars & Strings",
        "Musical Instruments",
        140.0,
        "Larkwood, Tern & Vale, Sixmile",
        "Acoustic Guitar, Ukulele, Travel Guitar, Electric Guitar",
        "String Set, Guitar Strap, Clip-On Tuner, Capo",
        "bright_tone warm_tone lightweight budget_price premium_build beginner_friendly wooden_finish colourful",
        "bright_tone warm_tone lightweight budget_price premium_build colourful",
    ),
    _category(
        "Microphones & Recording",
        "Musical Instruments",
        95.0,
        "Voxen, Northroom, Halden Audio",
        "Condenser Microphone, Audio Interface, Podcast Microphone, Field Recorder",
        "Pop Filter, Boom Arm, Shock Mount, Microphone Stand",
        "usb_powered quiet compact bright_tone warm_tone budget_price premium_build fast_setup",
        "compact budget_price premium_build fast_setup quiet",
    ),
    _category(
        "Headphones & Speakers",
        "Electronics",
        80.0,
        "Orbeat, Duskline, Halden Audio",
        "Headphones, Portable Speaker, Earbuds, Soundbar",
        "Headphone Case, Speaker Stand, Ear Pad Set, Audio Cable",
        "deep_bass warm_tone wireless long_battery foldable lightweight waterproof budget_price",
        "lightweight waterproof budget_price foldable",
    ),
    _category(
        "Desk Lighting",
        "Home",
        45.0,
        "Lumenest, Pale & Pine, Arclet",
        "Desk Lamp, Clip Light, Monitor Light Bar, Reading Lamp",
        "LED Bulb, Lamp Clamp, Lamp Shade, Light Dimmer",
        "dimmable usb_powered compact adjustable minimalist wooden_finish long_battery budget_price",
        "dimmable compact minimalist wooden_finish budget_price",
    ),
    _category(
        "Coffee & Tea",
        "Kitchen",
        60.0,
        "Ember & Oak, Brewhill, Tamsin",
        "Coffee Grinder, Gooseneck Kettle, French Press, Milk Frother",
        "Filter Pack, Coffee Scoop, Knock Box, Storage Tin",
        "quiet easy_to_clean stainless_steel compact large_capacity premium_build fast_setup eco_friendly",
        "easy_to_clean stainless_steel compact large_capacity eco_friendly",
    ),
    _category(
        "Camping & Hiking",
        "Outdoors",
        85.0,
        "Fellstone, Wren & Ridge, Highmere",
        "Two-Person Tent, Camp Stove, Sleeping Pad, Headlamp",
        "Stuff Sack, Peg Set, Repair Kit, Dry Bag",
        "waterproof lightweight foldable compact large_capacity eco_friendly colourful fast_setup",
        "waterproof lightweight compact large_capacity eco_friendly colourful",
    ),
    _category(
        "Kitchen Tools",
        "Kitchen",
        55.0,
        "Tamsin, Copperlane, Daywell",
        "Blender, Hand Mixer, Rice Cooker, Toaster",
        "Measuring Cup Set, Spatula Set, Recipe Stand, Cutting Board",
        "easy_to_clean stainless_steel quiet large_capacity colourful wooden_finish eco_friendly budget_price",
        "easy_to_clean stainless_steel colourful wooden_finish eco_friendly budget_price",
    ),
    _category(
        "Home Office",
        "Office Products",
        70.0,
        "Keelwork, Arclet, Plainform",
        "Mechanical Keyboard, Ergonomic Mouse, Laptop Stand, Webcam",
        "Mouse Pad, Wrist Rest, Cable Organizer, Monitor Riser",
        "adjustable wireless quiet minimalist foldable usb_powered premium_build long_battery",
        "adjustable minimalist premium_build foldable",
    ),
)
