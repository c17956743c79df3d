# nooelint: oelint.bbclass.underscores
# Signs an image: a manifest with the SHA-256 sums of all that it put into DEPLOY_DIR_IMAGE, and a
# detached CMS signature of the manifest. scripts/verify-image checks both.
#   IMAGE_CLASSES += "image-signing"

IMAGE_SIGNING_KEY ?= ""
IMAGE_SIGNING_KEY[doc] = "Path of the private key (PEM) that signs images; nobody but its owner may read it."
IMAGE_SIGNING_KEY_PASS_FILE ?= ""
IMAGE_SIGNING_KEY_PASS_FILE[doc] = "Path of a file with the key's pass phrase, if it has one."
IMAGE_SIGNING_CERT ?= ""
IMAGE_SIGNING_CERT[doc] = "Path of the key's certificate (PEM), for digitalSignature and codeSigning."
IMAGE_SIGNING_CHAIN ?= ""
IMAGE_SIGNING_CHAIN[doc] = "Path of the certificates (PEM) between IMAGE_SIGNING_CERT and the CA, if there are any."
IMAGE_SIGNING_RELEASE ?= "0"
IMAGE_SIGNING_RELEASE[doc] = "\"1\" in a build whose images leave the house: a development key is an error there."

# Without a date: a signature made anew replaces the one before it.
IMAGE_SIGNING_MANIFEST ?= "${IMAGE_BASENAME}${IMAGE_MACHINE_SUFFIX}${IMAGE_NAME_SUFFIX}.sha256sums"
IMAGE_SIGNING_DEPLOYDIR = "${WORKDIR}/deploy-${PN}-image-sign"

# Hours before the task would say so. The files themselves are checked when they are used: a key may be plugged in.
# nooelint: oelint.task.noanonpython
python () {
    for variable in ('IMAGE_SIGNING_KEY', 'IMAGE_SIGNING_CERT'):
        if not d.getVar(variable):
            raise bb.parse.SkipRecipe('%s is not set, which image-signing.bbclass needs; name a file, or make one for trying with scripts/make-signing-ca' % variable)

    # create-spdx puts a document beside the image.
    if 'do_create_image_sbom_spdx' in (d.getVar('__BBTASKS', False) or []):
        d.appendVarFlag('do_image_sign', 'depends', ' ${PN}:do_create_image_sbom_spdx')
}

# What this image is made of in DEPLOY_DIR_IMAGE, as names below it: its own files, and those of
# the recipes that are deployed with it (kernel, device trees, boot loader).
def image_signing_names(d, tasks):
    directory = d.getVar('DEPLOY_DIR_IMAGE') + '/'
    multilibs = {}
    names = []
    for task in tasks:
        if task.taskname not in ('do_image_complete', 'do_create_image_sbom_spdx', 'do_deploy'):
            continue
        sstate_manifest = oe.sstatesig.find_sstate_manifest(task.pn, task.fn, task.taskname[len('do_'):], d, multilibs)[0]
        with open(sstate_manifest) as f:
            paths = f.read().splitlines()
        names += [path[len(directory):] for path in paths if path.startswith(directory)]
    return names

python do_image_sign () {
    key, pass_file = d.getVar('IMAGE_SIGNING_KEY'), d.getVar('IMAGE_SIGNING_KEY_PASS_FILE')
    certificate, chain = d.getVar('IMAGE_SIGNING_CERT'), d.getVar('IMAGE_SIGNING_CHAIN')
    manifest = os.path.join(d.getVar('IMAGE_SIGNING_DEPLOYDIR'), d.getVar('IMAGE_SIGNING_MANIFEST'))
    try:
        edgeweb_layer.image_signing.check(key, certificate, chain, pass_file)
        if edgeweb_layer.image_signing.is_development(certificate):
            message = '%s: %s belongs to a DEVELOPMENT KEY, which proves nothing about who built the image' % (d.getVar('PN'), certificate)
            if bb.utils.to_boolean(d.getVar('IMAGE_SIGNING_RELEASE')):
                bb.fatal('%s; IMAGE_SIGNING_RELEASE wants the maker\'s own in IMAGE_SIGNING_KEY and IMAGE_SIGNING_CERT' % message)
            bb.warn('%s; not for a release.' % message)
        names = image_signing_names(d, d.getVar('BB_TASKDEPDATA', False).values())
        edgeweb_layer.image_signing.write_manifest(d.getVar('DEPLOY_DIR_IMAGE'), names, manifest)
        edgeweb_layer.image_signing.sign(manifest, manifest + '.p7s', key, certificate, chain, pass_file)
    except edgeweb_layer.image_signing.SigningError as error:
        bb.fatal('image-signing: %s' % error)
}
addtask image_sign after do_image_complete before do_build

do_image_sign[cleandirs] = "${IMAGE_SIGNING_DEPLOYDIR}"
do_image_sign[depends] += "openssl-native:do_populate_sysroot"
# As do_build has it: all that is deployed with the image.
do_image_sign[recrdeptask] += "do_deploy"
# Another certificate is another signature; where it and its key lie is not.
do_image_sign[file-checksums] += "${@' '.join(f'{d.getVar(v)}:True' for v in ('IMAGE_SIGNING_CERT', 'IMAGE_SIGNING_CHAIN') if d.getVar(v))}"
# BB_TASKDEPDATA is there only when the task runs.
do_image_sign[vardepsexclude] += "IMAGE_SIGNING_KEY IMAGE_SIGNING_KEY_PASS_FILE IMAGE_SIGNING_CERT IMAGE_SIGNING_CHAIN BB_TASKDEPDATA"

# An image is not kept in sstate, so its signature is not either.
SSTATETASKS += "do_image_sign"
# nooelint: oelint.vars.mispell.unknown
SSTATE_SKIP_CREATION:task-image-sign = "1"
do_image_sign[sstate-inputdirs] = "${IMAGE_SIGNING_DEPLOYDIR}"
do_image_sign[sstate-outputdirs] = "${DEPLOY_DIR_IMAGE}"
do_image_sign[stamp-extra-info] = "${MACHINE_ARCH}"
python do_image_sign_setscene () {
    sstate_setscene(d)
}
addtask do_image_sign_setscene
